/* figures.h - what the programs of this folder read of themselves. */
#ifndef FIGURES_H
#define FIGURES_H

#include <stdio.h>
#include <time.h>

/* CPU time: clock is CLOCK_PROCESS_CPUTIME_ID or CLOCK_THREAD_CPUTIME_ID. */
static inline double cpu_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The peak of resident memory in bytes, 0 where the system does not tell. Not getrusage's, which an exec
 * inherits. */
static inline unsigned long long peak_resident(void)
{
    unsigned long long kib = 0;
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "VmHWM: %llu", &kib) != 1)
        ;
    if (f)
        fclose(f);
    return kib << 10;
}

#endif
