/* fork.c - fork() while other threads are in the middle of everything: the child must find every lock
 * free, and can go on with its own copy of the figures. */
#include "check.h"
#include "zmalloc.h"

#include <sys/wait.h>
#include <unistd.h>

static _Atomic bool stop;
static zaccount *shared;

static void busy(int number, uint64_t *seed)
{
    while (!stop)
        switch (number % 3) {
        case 0: zaccount_free(zaccount_new("short", NULL)); break;
        case 1: zaccount_set_limit(shared, 1000 + below(seed, 1000), 10); break;
        default: (void)zmalloc_total(); zaccount_fail_after(shared, -1, 0);
        }
}

/* What a child does first: all that takes a lock. */
static void in_child(size_t used)
{
    alarm(10);
    zaccount *a = zaccount_new("child", shared);
    const bool fine = a && zaccount_set_limit(shared, 5000, 0) == 0 && zaccount_charge(a, 100) &&
                      zaccount_used(shared) == 100 && zmalloc_total() == used + 100;
    zaccount_on_pressure(a, 10, NULL, NULL);
    zaccount_fail_after(a, 1, 1);
    zaccount_seal(shared);
    zaccount_uncharge(a, 100);
    _exit(fine && zaccount_free(a) == 0 ? 0 : 1);
}

static void *worker(void *number)
{
    uint64_t seed = check_seed + (uint64_t)(intptr_t)number;
    busy((int)(intptr_t)number, &seed);
    return NULL;
}

int main(int argc, char **argv)
{
    check_arguments(argc, argv);
    const size_t total = zmalloc_total();
    pthread_t thread[6];
    shared = zaccount_new("shared", NULL);
    void *block = zmalloc(100);
    for (intptr_t i = 0; i < 6; i++)
        pthread_create(&thread[i], NULL, worker, (void *)i);
    int children = 0, hung = 0, wrong = 0;
    const double end = check_now() + check_seconds;
    while (check_now() < end && !hung) {
        const pid_t pid = fork();
        if (pid == 0)
            in_child(total + zmalloc_size(block));
        int status = 0;
        waitpid(pid, &status, 0);
        children++;
        hung += WIFSIGNALED(status);
        wrong += WIFEXITED(status) && WEXITSTATUS(status);
    }
    stop = true;
    for (int i = 0; i < 6; i++)
        pthread_join(thread[i], NULL);
    printf("%d children\n", children);
    CHECK(children > 0 && hung == 0, "no child hangs on a lock that a thread of its parent held");
    CHECK(wrong == 0, "a child has its own copy of the figures");
    zfree(block);
    CHECK(zaccount_free(shared) == 0 && zmalloc_total() == total, "the parent's are untouched");
    return check_report();
}
