/* zsize.h - sizes as people write them: "64 MiB", "80%", and back.
 *
 * One grammar for every front. Anchored: nothing before, nothing after.
 *
 *     size     = number [" "] unit | integer | number [" "] "%"
 *     number   = digits ["." digits]        at most 18 digits after the point
 *     unit     = B | K KB KiB | M MB MiB | G GB GiB | T TB TiB      in any case, all 1024-based
 *
 * A number without a unit is bytes and must be whole. Fractions of a byte are dropped. A percentage is
 * of the memory that there is to use, above 0 and at most 100 (with at most 15 digits after the
 * point). The result is at least 1.
 *
 * Locale has no say. Thread-safe; nothing is allocated. */
#ifndef ZSIZE_H
#define ZSIZE_H

#include <stddef.h>

#include "zapi.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zsize_error {
    ZSIZE_OK = 0,
    ZSIZE_SYNTAX,   /* not a size */
    ZSIZE_RANGE,    /* a size, but below 1 byte or not 0 < percent <= 100 */
    ZSIZE_OVERFLOW, /* above ZSIZE_MAX */
};

/* The largest size there is: no object may be larger. */
#define ZSIZE_MAX ((size_t)-1 / 2)

/* What a message about a wrong size should say is allowed. */
#define ZSIZE_EXPECTED                                                                          \
    "an integer of bytes, or text such as \"64 MiB\", \"1.5g\", \"300 kB\" (1024-based) or \"80%\""

/* Reads length bytes of text. *size is written only with ZSIZE_OK. `memory` is what 100 % are. */
ZMALLOC_API enum zsize_error zsize_parse(const char *text, size_t length, size_t memory, size_t *size);

/* Room for the text of any size. */
#define ZSIZE_TEXT 32

/* Writes a size for people, "64.0 MiB", "312 B", rounded down to a tenth. Returns buffer. */
ZMALLOC_API char *zsize_format(char buffer[ZSIZE_TEXT], size_t size);

#ifdef __cplusplus
}
#endif
#endif
