/* stream.h - what a fuzz target is made of: bytes to take decisions by, and a check that aborts.
 *
 * A target is LLVMFuzzerTestOneInput(), linked with libFuzzer or with driver.c. Past its end a stream is
 * all zeros; is_over() ends a target's loop. */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                          \
    ((condition) ? (void)0                                                                       \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

struct stream {
    const uint8_t *at, *end;
};

static inline bool is_over(const struct stream *s)
{
    return s->at == s->end;
}

static inline uint8_t take(struct stream *s)
{
    return is_over(s) ? 0 : *s->at++;
}

static inline size_t take_below(struct stream *s, size_t n)
{
    return take(s) % n;
}

static inline uint64_t take_wide(struct stream *s)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | take(s);
    return value;
}

#endif
