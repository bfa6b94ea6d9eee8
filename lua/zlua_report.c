/* zlua_report.c - what zlua says of a script's memory.
 *
 * Works when the state is at its cap, or closed: everything here is C, with C's own memory. */
#define _XOPEN_SOURCE 700
#include "zlua_report.h"

#include "zcore.h"
#include "zmalloc.h"
#include "zmalloc_lua.h"
#include "zsize.h"

#include <errno.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void zlua_take_figures(struct zlua_figures *out, const zaccount *account)
{
    zaccount_stats(account, &out->of);
    out->strings = zmalloc_lua_created(account, LUA_TSTRING);
    out->tables = zmalloc_lua_created(account, LUA_TTABLE);
    out->functions = zmalloc_lua_created(account, LUA_TFUNCTION);
    out->userdata = zmalloc_lua_created(account, LUA_TUSERDATA);
    out->threads = zmalloc_lua_created(account, LUA_TTHREAD);
    out->total = zmalloc_total();
    out->rss = zmalloc_get_rss();
}

/* Which copy of the library keeps the process's register. */
static const char *core(char *buffer, size_t room)
{
    const struct zcore *owner = zcore_owner();
    const char *object = owner == &zcore_self ? NULL : zport_object_name(owner);
    snprintf(buffer, room, "zmalloc %s%s%s", owner->version, object ? " in " : "", object ? object : "");
    return buffer;
}

void zlua_tell_death(const struct zlua_figures *f)
{
    char limit[ZSIZE_TEXT], peak[ZSIZE_TEXT], asked[ZSIZE_TEXT];
    fprintf(stderr,
            "zmalloc: stopped at the limit of %s: peak %s, %llu request%s refused, the last one for %s",
            zsize_format(limit, f->of.limit), zsize_format(peak, f->of.peak),
            (unsigned long long)f->of.refusals, f->of.refusals == 1 ? "" : "s",
            zsize_format(asked, f->of.last_refused));
    if (f->place.line)
        fprintf(stderr, " at %s:%d", f->place.file, f->place.line);
    fputc('\n', stderr);
}

/* ---- the table ------------------------------------------------------------------------------------- */

enum { TITLE = 20 };

/* 1234567 as "1,234,567". */
static void put_grouped(uint64_t n)
{
    if (n >= 1000)
        put_grouped(n / 1000);
    fprintf(stderr, n >= 1000 ? ",%03u" : "%u", (unsigned)(n % 1000));
}

static void put_count(const char *title, uint64_t n)
{
    fprintf(stderr, "%-*s", TITLE, title);
    put_grouped(n);
    fputc('\n', stderr);
}

static void put_size(const char *title, size_t n)
{
    char size[ZSIZE_TEXT];
    fprintf(stderr, "%-*s", TITLE, title);
    put_grouped(n);
    fputs(" B", stderr);
    if (n >= 1024)
        fprintf(stderr, "  (%s)", zsize_format(size, n));
}

static void put_size_line(const char *title, size_t n)
{
    put_size(title, n);
    fputc('\n', stderr);
}

static void put_mark(const char *title, size_t n)
{
    if (n == ZACCOUNT_UNLIMITED)
        fprintf(stderr, "%-*snone\n", TITLE, title);
    else
        put_size_line(title, n);
}

static void put_text(const char *title, const char *text)
{
    fprintf(stderr, "%-*s%s\n", TITLE, title, text);
}

static void put_last_refused(const struct zlua_figures *f)
{
    if (!f->of.refusals) {
        put_text("last refused", "none");
        return;
    }
    put_size("last refused", f->of.last_refused);
    if (f->place.line)
        fprintf(stderr, " at %s:%d", f->place.file, f->place.line);
    fputc('\n', stderr);
}

static void put_kinds(const struct zlua_figures *f)
{
    if (!f->threads)
        return; /* this Lua does not tell */
    put_count("strings", f->strings);
    put_count("tables", f->tables);
    put_count("functions", f->functions);
    put_count("userdata", f->userdata);
    put_count("threads", f->threads);
}

void zlua_show_figures(const struct zlua_figures *f)
{
    char buffer[1200];
    put_size_line("used", f->of.used);
    put_size_line("peak", f->of.peak);
    put_mark("limit", f->of.limit);
    put_text("limit hit", f->of.limit_hit ? "yes" : "no");
    put_mark("hard limit", f->of.hard_limit);
    put_text("sealed", f->of.sealed || f->of.guest_sealed ? "yes" : "no");
    put_size_line("total", f->total);
    put_size_line("rss", f->rss);
    snprintf(buffer, sizeof buffer, "%.2f", f->total ? (double)f->rss / (double)f->total : 0.0);
    put_text("fragmentation", f->total ? buffer : "none");
    put_count("allocations", f->of.allocations);
    put_count("frees", f->of.frees);
    put_count("refusals", f->of.refusals);
    put_last_refused(f);
    put_count("collections", f->of.retries);
    put_count("overhead refusals", f->of.overhead_refusals);
    put_text("core", core(buffer, sizeof buffer));
    put_kinds(f);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

/* How many bytes follow the first one of a character; -1: it begins none. */
static int count_following(unsigned char first)
{
    if (first < 0x80)
        return 0;
    if (first < 0xc2 || first > 0xf4)
        return -1;
    return first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
}

/* The character that begins at s, and its length; false if it is no UTF-8. */
static bool decode(const unsigned char *s, unsigned long *c, int *length)
{
    static const unsigned long least[] = {0, 0x80, 0x800, 0x10000};
    const int more = count_following(*s);
    if (more < 0)
        return false;
    *c = more ? *s & (0x3fu >> more) : *s;
    for (int i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return false;
        *c = *c << 6 | (s[i] & 0x3fu);
    }
    *length = more + 1;
    return *c >= least[more] && *c <= 0x10ffff && !(*c >= 0xd800 && *c < 0xe000);
}

static void put_character(FILE *file, unsigned long c)
{
    if (c == '"' || c == '\\')
        fprintf(file, "\\%c", (int)c);
    else if (c >= ' ' && c <= '~')
        fputc((int)c, file);
    else if (c < 0x10000)
        fprintf(file, "\\u%04lx", c);
    else
        fprintf(file, "\\u%04lx\\u%04lx", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
}

static void put_string(FILE *file, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    fputc('"', file);
    while (*at) {
        unsigned long c;
        int length;
        if (!decode(at, &c, &length)) { /* as Python has such bytes: a lone surrogate */
            c = 0xdc00ul + *at;
            length = 1;
        }
        put_character(file, c);
        at += length;
    }
    fputc('"', file);
}

/* The program as it was asked for: the codes, then the script and its arguments. */
static void put_program(FILE *file, const struct zlua_options *o)
{
    const char *between = "";
    fputs("  \"script\": [", file);
    for (int i = 0; i < o->code_count; i++, between = ", ") {
        fprintf(file, "%s\"-e\", ", between);
        put_string(file, o->code[i]);
    }
    for (int i = o->script; i && i < o->argc; i++, between = ", ") {
        fputs(between, file);
        put_string(file, o->argv[i]);
    }
    fputs("],\n", file);
}

static void put_number(FILE *file, const char *name, uint64_t n)
{
    fprintf(file, "    \"%s\": %llu,\n", name, (unsigned long long)n);
}

static void put_boolean(FILE *file, const char *name, bool value)
{
    fprintf(file, "    \"%s\": %s,\n", name, value ? "true" : "false");
}

static void put_limit(FILE *file, const char *name, size_t n)
{
    if (n == ZACCOUNT_UNLIMITED)
        fprintf(file, "    \"%s\": null,\n", name);
    else
        put_number(file, name, n);
}

static void put_refusal(FILE *file, const struct zlua_figures *f)
{
    fputs("    \"last_refused\": ", file);
    if (!f->of.refusals) {
        fputs("null,\n", file);
        return;
    }
    fprintf(file, "{\"bytes\": %zu, \"file\": ", f->of.last_refused);
    if (f->place.line) {
        put_string(file, f->place.file);
        fprintf(file, ", \"line\": %d},\n", f->place.line);
    } else {
        fputs("null, \"line\": null},\n", file);
    }
}

static void put_created(FILE *file, const struct zlua_figures *f)
{
    fputs("    \"kinds\": ", file);
    if (!f->threads) {
        fputs("null\n", file);
        return;
    }
    fprintf(file,
            "{\"strings\": %llu, \"tables\": %llu, \"functions\": %llu, \"userdata\": %llu, "
            "\"threads\": %llu}\n",
            (unsigned long long)f->strings, (unsigned long long)f->tables, (unsigned long long)f->functions,
            (unsigned long long)f->userdata, (unsigned long long)f->threads);
}

static void put_figures(FILE *file, const struct zlua_figures *f)
{
    char name[1200];
    put_number(file, "used", f->of.used);
    put_number(file, "total", f->total);
    put_number(file, "peak", f->of.peak);
    put_limit(file, "limit", f->of.limit);
    put_limit(file, "hard_limit", f->of.hard_limit);
    put_number(file, "reserve", f->of.limit == ZACCOUNT_UNLIMITED ? 0 : f->of.hard_limit - f->of.limit);
    put_boolean(file, "limit_hit", f->of.limit_hit);
    put_boolean(file, "sealed", f->of.sealed || f->of.guest_sealed);
    put_number(file, "allocations", f->of.allocations);
    put_number(file, "frees", f->of.frees);
    put_number(file, "refusals", f->of.refusals);
    put_refusal(file, f);
    put_number(file, "collections", f->of.retries);
    put_number(file, "overhead_refusals", f->of.overhead_refusals);
    put_number(file, "rss", f->rss);
    if (f->total)
        fprintf(file, "    \"fragmentation\": %.4f,\n", (double)f->rss / (double)f->total);
    else
        fputs("    \"fragmentation\": null,\n", file);
    fputs("    \"core\": ", file);
    put_string(file, core(name, sizeof name));
    fputs(",\n", file);
    put_created(file, f);
}

/* False: errno says why. */
static bool put_report(FILE *file, const struct zlua_options *o, const struct zlua_figures *f, int status)
{
    fputs("{\n", file);
    put_program(file, o);
    if (status < 0)
        fputs("  \"status\": null,\n", file);
    else
        fprintf(file, "  \"status\": %d,\n", status);
    fputs("  \"lua\": \"" LUA_RELEASE "\",\n  \"zmalloc\": \"" ZMALLOC_VERSION "\",\n  \"stats\": {\n", file);
    put_figures(file, f);
    fputs("  }\n}\n", file);
    return !ferror(file) && fflush(file) == 0;
}

/* ---- the file -------------------------------------------------------------------------------------- */

static bool write_over(const char *path, const struct zlua_options *o, const struct zlua_figures *f,
                       int status)
{
    FILE *file = fopen(path, "w");
    const bool done = file && put_report(file, o, f, status);
    return (!file || fclose(file) == 0) && done;
}

static bool write_beside(const char *path, const char *beside, const struct stat *old,
                         const struct zlua_options *o, const struct zlua_figures *f, int status)
{
    FILE *file = fopen(beside, "w");
    if (!file)
        return false;
    bool done = put_report(file, o, f, status) && fsync(fileno(file)) == 0;
    if (old)
        done = fchmod(fileno(file), old->st_mode & 07777) == 0 && done;
    done = fclose(file) == 0 && done && rename(beside, path) == 0;
    const int reason = errno;
    if (!done)
        unlink(beside);
    errno = reason;
    return done;
}

static bool write_report(const char *path, const struct zlua_options *o, const struct zlua_figures *f,
                         int status)
{
    struct stat old;
    const bool is_there = stat(path, &old) == 0;
    if (is_there && !S_ISREG(old.st_mode))
        return write_over(path, o, f, status);
    const size_t room = strlen(path) + 32;
    char *beside = malloc(room);
    if (!beside)
        return false;
    snprintf(beside, room, "%s.%ld.tmp", path, (long)getpid());
    const bool done = write_beside(path, beside, is_there ? &old : NULL, o, f, status);
    free(beside);
    return done;
}

void zlua_write_json(const struct zlua_options *o, const struct zlua_figures *f, int status)
{
    char *real = realpath(o->json, NULL); /* of a link the file itself; NULL: there is none yet */
    if (!write_report(real ? real : o->json, o, f, status))
        fprintf(stderr, "%s: cannot write '%s': %s\n", o->name, o->json, strerror(errno));
    free(real);
}
