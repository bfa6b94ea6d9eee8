/* zlua_report.h - what zlua says of a script's memory: the line about its end, --stats, --json. */
#ifndef ZLUA_REPORT_H
#define ZLUA_REPORT_H

#include "zaccount.h"
#include "zlua_options.h"
#include "zlua_trace.h"

#include <stdint.h>

/* All figures at one moment. */
struct zlua_figures {
    struct zaccount_figures of;
    uint64_t strings, tables, functions, userdata, threads;
    size_t total, rss;
    struct zlua_place place; /* of the request that was refused last; line 0: not known */
};

void zlua_take_figures(struct zlua_figures *out, const zaccount *account);

/* The line about a script that died of its cap, to stderr. */
void zlua_tell_death(const struct zlua_figures *f);

/* The table of --stats, to stderr. */
void zlua_show_figures(const struct zlua_figures *f);

/* Writes the file of --json, all of it or nothing: beside its place, then moved there. What is no file (a
 * pipe, a device) is written to. status < 0: not known. */
void zlua_write_json(const struct zlua_options *o, const struct zlua_figures *f, int status);

#endif
