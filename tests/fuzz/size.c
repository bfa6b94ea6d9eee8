/* size.c - fuzz target: zsize_parse() and zsize_format() against a parser in 128-bit arithmetic, which is
 * written from the grammar in zsize.h. */
#include "stream.h"
#include "zsize.h"

typedef unsigned __int128 wide;

enum { MOST = 18, MOST_OF_PERCENT = 15 };

/* Of a number: its digits as an integer that stops growing far above any size, and where it ends. */
static size_t digits(const char *text, size_t at, size_t length, wide *value)
{
    *value = 0;
    for (; at < length && text[at] >= '0' && text[at] <= '9'; at++)
        if (*value < (wide)1 << 80)
            *value = *value * 10 + (unsigned char)(text[at] - '0');
    return at;
}

/* The power of two behind a unit, -1 for none. */
static int power_of(const char *unit, size_t length)
{
    static const struct {
        const char *name;
        int power;
    } units[] = {{"b", 0},   {"k", 10},   {"kb", 10}, {"kib", 10}, {"m", 20},   {"mb", 20},   {"mib", 20},
                 {"g", 30},  {"gb", 30},  {"gib", 30}, {"t", 40},  {"tb", 40},  {"tib", 40}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t same = 0;
        while (same < length && units[i].name[same] && (unit[same] | 32) == units[i].name[same])
            same++;
        if (same == length && !units[i].name[same])
            return units[i].power;
    }
    return -1;
}

static enum zsize_error in_range(wide value, size_t *size)
{
    if (value < 1)
        return ZSIZE_RANGE;
    if (value > ZSIZE_MAX)
        return ZSIZE_OVERFLOW;
    *size = (size_t)value;
    return ZSIZE_OK;
}

static enum zsize_error model(const char *text, size_t length, size_t memory, size_t *size)
{
    wide whole, fraction = 0, scale = 1;
    size_t decimals = 0, at = digits(text, 0, length, &whole);
    if (at == 0)
        return ZSIZE_SYNTAX;
    const bool has_point = at < length && text[at] == '.';
    if (has_point) {
        const size_t from = ++at;
        at = digits(text, at, length, &fraction);
        decimals = at - from;
        if (decimals == 0 || decimals > MOST)
            return ZSIZE_SYNTAX;
        for (size_t i = 0; i < decimals; i++)
            scale *= 10;
    }
    if (at == length)
        return has_point ? ZSIZE_SYNTAX : in_range(whole, size);
    at += text[at] == ' ';
    if (length - at == 1 && text[at] == '%') {
        if (whole > 100 || (whole == 100 && fraction))
            return ZSIZE_RANGE;
        if (decimals > MOST_OF_PERCENT)
            return ZSIZE_SYNTAX;
        return in_range((wide)memory * (whole * scale + fraction) / (100 * scale), size);
    }
    const int power = power_of(text + at, length - at);
    if (power < 0)
        return ZSIZE_SYNTAX;
    return in_range((whole << power) + (fraction << power) / scale, size);
}

static void look_at(const char *text, size_t length, size_t memory)
{
    size_t size = 4711, expected = 4711;
    const enum zsize_error error = zsize_parse(text, length, memory, &size);
    MUST(error == model(text, length, memory, &expected));
    MUST(size == expected); /* untouched after an error */
}

/* What is shown is never more than there is, less by no more than a tenth of its unit, and can be read. */
static void show(size_t size)
{
    char text[ZSIZE_TEXT];
    size_t back = 0, tenth = 1;
    MUST(zsize_format(text, size) == text && strlen(text) < ZSIZE_TEXT);
    if (size >> 50)
        return; /* in units that are not read */
    MUST(zsize_parse(text, strlen(text), 0, &back) == (size ? ZSIZE_OK : ZSIZE_RANGE));
    for (size_t rest = size; rest >= 1024; rest /= 1024)
        tenth *= 1024;
    MUST(back <= size && size - back <= tenth / 10 + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t memories[] = {0, 1, 99, 1000, ((size_t)8 << 30) + 7, ZSIZE_MAX, SIZE_MAX};
    struct stream bytes = {data, data + size};
    char *text = malloc(size + !size); /* to the byte, so that a byte too far is seen */
    MUST(text);
    memcpy(text, data, size);
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        look_at(text, size, memories[i]);
    free(text);
    const uint64_t number = take_wide(&bytes);
    show((size_t)(number >> take_below(&bytes, 64)));
    return 0;
}
