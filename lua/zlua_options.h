/* zlua_options.h - the command line of zlua. */
#ifndef ZLUA_OPTIONS_H
#define ZLUA_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

struct zlua_options {
    char **argv;
    int argc;
    const char *name; /* as lua.c has it: how the program was called */
    size_t limit;     /* ZACCOUNT_UNLIMITED: none. Of --limit and ZMALLOC_LIMIT the smaller one */
    const char *limit_name; /* which of the two that is */
    size_t reserve;
    bool stats;
    const char *json;   /* NULL, or a path that begins with "/" */
    const char **code;  /* the texts of -e, */
    int code_count;
    int script;         /* and where in argv the script is; 0: there is none */
};

/* Reads argv and the environment. False: the process is to end with *status, and all has been said. */
bool zlua_read_options(struct zlua_options *out, int argc, char **argv, int *status);

/* "zlua: message" in a line on stderr, and how it is to be called. Returns the exit status for that. */
int zlua_complain(const struct zlua_options *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
