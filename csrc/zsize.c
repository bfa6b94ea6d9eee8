/* zsize.c - reading and writing sizes. Integer arithmetic only: what is read is exact to the byte. */
#include "zsize.h"
#include "zport.h"

#include <stdint.h>
#include <stdio.h>

enum { MOST_DECIMALS = 18 };

/* A number as it was written: whole + fraction / scale, scale a power of ten. */
struct number {
    uint64_t whole, fraction, scale;
    bool has_point, too_large;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Reads a number at *s and moves *s past it; false if there is none. */
static bool read_number(const char **s, const char *end, struct number *n)
{
    *n = (struct number){0, 0, 1, false, false};
    if (*s == end || !is_digit(**s))
        return false;
    for (; *s < end && is_digit(**s); ++*s) {
        const uint64_t digit = (uint64_t)(**s - '0');
        n->too_large = n->too_large || n->whole > (UINT64_MAX - digit) / 10;
        n->whole = n->too_large ? 0 : n->whole * 10 + digit;
    }
    if (*s == end || **s != '.')
        return true;
    n->has_point = true;
    int decimals = 0;
    for (++*s; *s < end && is_digit(**s); ++*s, ++decimals) {
        if (decimals == MOST_DECIMALS)
            return false;
        n->fraction = n->fraction * 10 + (uint64_t)(**s - '0');
        n->scale *= 10;
    }
    return decimals > 0;
}

/* The power of two behind a unit, from the text after the number; -1 if it is none. */
static int read_unit(const char *s, const char *end)
{
    static const char letters[] = "bkmgt";
    const size_t length = (size_t)(end - s);
    if (length < 1 || length > 3)
        return -1;
    int power = 0;
    while (letters[power] && letters[power] != lower(s[0]))
        power++;
    if (!letters[power] || (power == 0 && length != 1))
        return -1;
    if (length == 2 && lower(s[1]) != 'b')
        return -1;
    if (length == 3 && (lower(s[1]) != 'i' || lower(s[2]) != 'b'))
        return -1;
    return 10 * power;
}

/* floor(fraction / scale * 2^power), a bit at a time: exact, and never larger than scale * 2. */
static uint64_t scaled_fraction(const struct number *n, int power)
{
    uint64_t rest = n->fraction, result = 0;
    while (power-- > 0) {
        rest *= 2;
        result *= 2;
        if (rest >= n->scale) {
            rest -= n->scale;
            result++;
        }
    }
    return result;
}

/* a * b / c without the product's overflow, for a result that is at most a: b <= c. */
static uint64_t share(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t result = 0, rest = 0; /* schoolbook: the bits of a, from the top; rest < c <= 2^63 */
    for (int bit = 63; bit >= 0; bit--) {
        uint64_t carry = 0;
        rest *= 2;
        if (rest >= c) {
            rest -= c;
            carry++;
        }
        if (a >> bit & 1) {
            rest += b;
            if (rest >= c) {
                rest -= c;
                carry++;
            }
        }
        result = result * 2 + carry;
    }
    return result;
}

static enum zsize_error checked(uint64_t size, size_t *out)
{
    if (size < 1)
        return ZSIZE_RANGE;
    if (size > ZSIZE_MAX)
        return ZSIZE_OVERFLOW;
    *out = (size_t)size;
    return ZSIZE_OK;
}

static enum zsize_error percentage(const struct number *n, size_t memory, size_t *out)
{
    if (n->too_large || n->whole > 100 || (n->whole == 100 && n->fraction))
        return ZSIZE_RANGE;
    if (n->scale > 1000000000000000) /* 15 digits: 100 * scale must stay below 2^63 */
        return ZSIZE_SYNTAX;
    return checked(share(memory, n->whole * n->scale + n->fraction, 100 * n->scale), out);
}

enum zsize_error zsize_parse(const char *text, size_t length, size_t memory, size_t *size)
{
    const char *s = text, *end = text + length;
    struct number n;
    if (!read_number(&s, end, &n))
        return ZSIZE_SYNTAX;
    if (s == end) {
        if (n.has_point)
            return ZSIZE_SYNTAX;
        return n.too_large ? ZSIZE_OVERFLOW : checked(n.whole, size);
    }
    if (*s == ' ')
        s++;
    if (end - s == 1 && *s == '%')
        return percentage(&n, memory, size);
    const int power = read_unit(s, end);
    if (power < 0)
        return ZSIZE_SYNTAX;
    if (n.too_large || n.whole > UINT64_MAX >> 1 >> power)
        return ZSIZE_OVERFLOW;
    return checked((n.whole << power) + scaled_fraction(&n, power), size);
}

char *zsize_format(char buffer[ZSIZE_TEXT], size_t size)
{
    static const char units[] = "KMGTPE";
    if (size < 1024) {
        snprintf(buffer, ZSIZE_TEXT, "%zu B", size);
        return buffer;
    }
    int unit = 0, shift = 10;
    while (size >> shift >= 1024 && units[unit + 1]) {
        shift += 10;
        unit++;
    }
    /* Rounded down to a tenth of the unit, so that a size is never shown as larger than it is. */
    const uint64_t rest = size & (((size_t)1 << shift) - 1);
    const unsigned tenth = (unsigned)(rest * 10 >> shift);
    snprintf(buffer, ZSIZE_TEXT, "%zu.%u %ciB", size >> shift, tenth, units[unit]);
    return buffer;
}
