/*
 * Counts of coverage of a process that ends by _exit(), abort() or raise(), which gcov loses: a child
 * that a test has forked, mostly.
 *
 * Compiled twice. What is covered is linked with an object that announces its gcov_dump(), which is
 * hidden; with -DEARLY it is the library that is preloaded, and calls them all before the end.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef EARLY

enum { MOST = 64 };
static void (*dumps[MOST])(void);
static int count;

void coverage_announce(void (*dump)(void));
void coverage_withdraw(void (*dump)(void));

void coverage_announce(void (*dump)(void))
{
    const int i = __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
    if (i < MOST)
        dumps[i] = dump;
}

void coverage_withdraw(void (*dump)(void))
{
    for (int i = 0; i < count && i < MOST; i++)
        if (dumps[i] == dump)
            dumps[i] = NULL;
}

static void dump_all(void)
{
    for (int i = 0; i < count && i < MOST; i++)
        if (dumps[i])
            dumps[i]();
}

void _exit(int status)
{
    dump_all();
    for (;;)
        syscall(SYS_exit_group, status);
}

void _Exit(int status)
{
    _exit(status);
}

void abort(void)
{
    void (*next)(void);
    dump_all();
    *(void **)&next = dlsym(RTLD_NEXT, "abort");
    next();
    _exit(134);
}

int raise(int which)
{
    int (*next)(int);
    dump_all();
    *(void **)&next = dlsym(RTLD_NEXT, "raise");
    return next(which);
}

#else

void coverage_announce(void (*dump)(void)) __attribute__((weak));
void coverage_withdraw(void (*dump)(void)) __attribute__((weak));
void __gcov_dump(void);

__attribute__((constructor)) static void announce(void)
{
    if (coverage_announce)
        coverage_announce(__gcov_dump);
}

__attribute__((destructor)) static void withdraw(void)
{
    if (coverage_withdraw)
        coverage_withdraw(__gcov_dump);
}

#endif
