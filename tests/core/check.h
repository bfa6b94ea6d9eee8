/* check.h - CHECK(condition, what), threads that start together, and a line at the end. */
#ifndef CHECK_H
#define CHECK_H

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* barriers, clock_gettime */
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static _Atomic long check_passed, check_failed;

#define CHECK(condition, what)                                                                   \
    ((condition) ? (void)atomic_fetch_add_explicit(&check_passed, 1, memory_order_relaxed)       \
     : atomic_fetch_add(&check_failed, 1) < 20                                                   \
         ? (void)printf("%s:%d: %s: %s\n", __FILE__, __LINE__, what, #condition)                 \
         : (void)0)

static inline int check_report(void)
{
    printf("%ld passed, %ld failed\n", check_passed, check_failed);
    return check_failed != 0;
}

enum { THREADS = 8 };

static pthread_barrier_t check_start;
static void (*check_body)(int number, uint64_t *seed);
static uint64_t check_seed = 88172645463325252u;
static double check_seconds = 0.5;

static inline double check_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* xorshift: a number below n. */
static inline size_t below(uint64_t *seed, size_t n)
{
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return (size_t)(*seed >> 11) % n;
}

static void *check_thread(void *number)
{
    const int i = (int)(intptr_t)number;
    uint64_t seed = check_seed + (uint64_t)i * 0x9e3779b97f4a7c15u;
    pthread_barrier_wait(&check_start);
    check_body(i, &seed);
    return NULL;
}

/* Runs body(0..n-1, its own seed), each in a thread, and waits for all. */
static inline void together(int n, void (*body)(int number, uint64_t *seed))
{
    pthread_t thread[64];
    check_body = body;
    pthread_barrier_init(&check_start, NULL, (unsigned)n);
    for (int i = 0; i < n; i++)
        pthread_create(&thread[i], NULL, check_thread, (void *)(intptr_t)i);
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&check_start);
}

/* argv: NAME SECONDS SEED, all optional. Prints the seed, so that a run can be had again. */
static inline void check_arguments(int argc, char **argv)
{
    if (argc > 2)
        check_seconds = atof(argv[2]);
    check_seed = argc > 3 ? strtoull(argv[3], NULL, 0) : check_seed ^ (uint64_t)time(NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("seed %llu\n", (unsigned long long)check_seed);
}

static inline bool check_wants(int argc, char **argv, const char *name)
{
    return argc < 2 || strcmp(argv[1], "all") == 0 || strcmp(argv[1], name) == 0;
}

#endif
