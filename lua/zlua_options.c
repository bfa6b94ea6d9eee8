/* zlua_options.c - the command line of zlua: nothing is run when a word of it is wrong. */
#define _XOPEN_SOURCE 700
#include "zlua_options.h"

#include "zaccount.h"
#include "zmalloc.h"
#include "zmalloc_lua.h"
#include "zsize.h"

#include <lua.h>
#if defined(LUA_JITLIBNAME)
#include <luajit.h>
#define LUA_IS LUAJIT_VERSION
#else
#define LUA_IS LUA_RELEASE
#endif

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USAGE "usage: zlua [options] (script.lua | -e code | -) [args...]\n"

enum { STATUS_USAGE = 2 };

static const char help[] =
    USAGE "\n"
    "Runs a Lua script as lua does, with every byte counted. Options come before the script:\n"
    "\n"
    "  --limit SIZE    cap what the script may use; a request beyond it is a memory error.\n"
    "                  No script can lift or raise it. A script that dies of it ends with\n"
    "                  exit status 53 and one line that says so.\n"
    "  --reserve SIZE  what handlers, __close and __gc may use beyond the limit once it has\n"
    "                  been hit: a sixteenth of it unless told, between 4 KiB and 1 MiB\n"
    "  --stats         print a table of all figures to stderr at the end\n"
    "  --json FILE     write the figures, the exit status and the versions to FILE at the end\n"
    "  -e CODE         run CODE; may be given several times, and before a script\n"
    "\n"
    "A SIZE is bytes, or 64MiB, 1.5g, 300kB (all 1024-based), or 80% of the memory there is.\n"
    "ZMALLOC_LIMIT=SIZE in the environment caps too: the smaller one holds. LUA_INIT is obeyed.\n";

int zlua_complain(const struct zlua_options *o, const char *format, ...)
{
    va_list values;
    fprintf(stderr, "%s: ", o->name);
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputs("\n" USAGE, stderr);
    return STATUS_USAGE;
}

/* ---- sizes --------------------------------------------------------------------------------------- */

static int complain_size(const struct zlua_options *o, const char *what, const char *text,
                         enum zsize_error error)
{
    enum { MOST = 60 };
    const char *dots = strlen(text) > MOST ? "..." : "";
    if (error == ZSIZE_SYNTAX)
        return zlua_complain(o, "%s='%.*s%s' is not a size: expected %s", what, MOST, text, dots,
                             ZSIZE_EXPECTED);
    if (error == ZSIZE_RANGE)
        return zlua_complain(
            o, "%s='%.*s%s' is out of range: expected at least 1 byte, and 0 < percent <= 100", what, MOST,
            text, dots);
    return zlua_complain(o, "%s='%.*s%s' is too large: at most %zu bytes", what, MOST, text, dots, ZSIZE_MAX);
}

/* 0, or the exit status after a message. */
static int read_size(const struct zlua_options *o, const char *what, const char *text, size_t *size)
{
    const size_t length = strlen(text);
    const bool relative = length > 0 && text[length - 1] == '%';
    const size_t memory = relative ? zmalloc_get_memory_size() : 0;
    if (relative && memory == 0)
        return zlua_complain(o, "%s='%s': this system does not tell how much memory there is", what, text);
    const enum zsize_error error = zsize_parse(text, length, memory, size);
    return error == ZSIZE_OK ? 0 : complain_size(o, what, text, error);
}

static int read_reserve(struct zlua_options *o, const char *text)
{
    if (strcmp(text, "0") != 0)
        return read_size(o, "--reserve", text, &o->reserve);
    o->reserve = 0;
    return 0;
}

/* ---- the file of --json ---------------------------------------------------------------------------- */

/* The script may go to another folder, so the path is made absolute now. */
static int read_json(struct zlua_options *o, const char *path)
{
    if (!*path)
        return zlua_complain(o, "--json needs the name of a file");
    char *folder = *path == '/' ? NULL : getcwd(NULL, 0);
    const size_t room = (folder ? strlen(folder) : 0) + strlen(path) + 2;
    char *whole = malloc(room);
    if (!whole)
        return zlua_complain(o, "--json: not enough memory");
    snprintf(whole, room, "%s%s%s", folder ? folder : "", *path == '/' ? "" : "/", path);
    free(folder);
    struct stat is;
    char *slash = strrchr(whole, '/'), kept = slash[1];
    slash[1] = '\0';
    if (stat(whole, &is) != 0 || !S_ISDIR(is.st_mode))
        return zlua_complain(o, "--json: there is no folder '%s'", whole);
    slash[1] = kept;
    o->json = whole;
    return 0;
}

/* ---- options ------------------------------------------------------------------------------------- */

static bool is_option(const char *word, size_t length, const char *name)
{
    return strlen(name) == length && memcmp(word, name, length) == 0;
}

static int take_value(struct zlua_options *o, const char *name, const char *value)
{
    if (strcmp(name, "--json") == 0)
        return read_json(o, value);
    if (strcmp(name, "--reserve") == 0)
        return read_reserve(o, value);
    o->limit_name = "--limit";
    return read_size(o, "--limit", value, &o->limit);
}

/* The word at *at, which begins with "--", and its value. */
static int take_long(struct zlua_options *o, int *at)
{
    static const char *const with_value[] = {"--limit", "--reserve", "--json"};
    const char *word = o->argv[*at], *equals = strchr(word, '=');
    const size_t length = equals ? (size_t)(equals - word) : strlen(word);
    if (is_option(word, length, "--stats") && !equals) {
        o->stats = true;
        return 0;
    }
    for (size_t i = 0; i < sizeof with_value / sizeof *with_value; i++) {
        if (!is_option(word, length, with_value[i]))
            continue;
        const char *value = equals ? equals + 1 : o->argv[*at + 1];
        if (!value)
            return zlua_complain(o, "%s needs a value", with_value[i]);
        *at += !equals;
        return take_value(o, with_value[i], value);
    }
    return zlua_complain(o, "unknown option %.*s", (int)length, word);
}

static int take_code(struct zlua_options *o, int *at)
{
    const char *word = o->argv[*at], *code = word[2] ? word + 2 : o->argv[++*at];
    if (!code)
        return zlua_complain(o, "-e needs code");
    o->code[o->code_count++] = code;
    return 0;
}

static int take_words(struct zlua_options *o)
{
    for (int i = 1; i < o->argc; i++) {
        const char *word = o->argv[i];
        int failed;
        if (word[0] != '-' || word[1] == '\0') {
            o->script = i;
            return 0;
        }
        if (strcmp(word, "--") == 0) {
            o->script = i + 1 < o->argc ? i + 1 : 0;
            return 0;
        }
        if (word[1] == '-')
            failed = take_long(o, &i);
        else if (word[1] == 'e')
            failed = take_code(o, &i);
        else
            failed = zlua_complain(o, "unknown option %s", word);
        if (failed)
            return failed;
    }
    return 0;
}

/* ---- the environment ------------------------------------------------------------------------------- */

static int read_environment(struct zlua_options *o)
{
    const char *text = getenv("ZMALLOC_LIMIT");
    size_t limit = 0;
    if (!text || !*text)
        return 0;
    const int failed = read_size(o, "ZMALLOC_LIMIT", text, &limit);
    if (!failed && limit < o->limit) {
        o->limit = limit;
        o->limit_name = "ZMALLOC_LIMIT";
    }
    return failed;
}

/* As the module has it, for a limit of which no more is said. */
static int settle(struct zlua_options *o)
{
    if (!o->script && !o->code_count)
        return zlua_complain(o, "there is nothing to run");
    const bool is_capped = o->limit != ZACCOUNT_UNLIMITED;
    if (o->reserve != SIZE_MAX && !is_capped)
        return zlua_complain(o, "--reserve needs a limit: --limit, or ZMALLOC_LIMIT in the environment");
    if (o->reserve == SIZE_MAX)
        o->reserve = is_capped ? zmalloc_lua_reserve(o->limit) : 0;
    return 0;
}

static bool asks_for(const struct zlua_options *o, const char *word)
{
    return o->argc > 1 && strcmp(o->argv[1], word) == 0;
}

bool zlua_read_options(struct zlua_options *o, int argc, char **argv, int *status)
{
    *o = (struct zlua_options){.argv = argv, .argc = argc, .limit = ZACCOUNT_UNLIMITED, .reserve = SIZE_MAX};
    o->name = argc > 0 && argv[0][0] ? argv[0] : "zlua";
    *status = 0;
    if (asks_for(o, "--help") || asks_for(o, "-h")) {
        fputs(help, stdout);
        return false;
    }
    if (asks_for(o, "--version")) {
        printf("zmalloc %s (%s)\n", ZMALLOC_VERSION, LUA_IS);
        return false;
    }
    o->code = calloc((size_t)argc + 1, sizeof *o->code);
    if (!o->code)
        *status = zlua_complain(o, "not enough memory");
    if (!*status)
        *status = take_words(o);
    if (!*status)
        *status = read_environment(o);
    if (!*status)
        *status = settle(o);
    return *status == 0;
}
