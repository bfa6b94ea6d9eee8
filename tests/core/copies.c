/* copies.c - a program that has the core linked in, and a shared library with another copy of it.
 *
 * argv: the library, then "shared" if the two must find each other (-rdynamic) or "apart". */
#include "check.h"
#include "zmalloc.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

/* The library's functions, next to our own of the same names. */
static struct {
    void *(*malloc)(size_t size);
    void (*free)(void *p);
    size_t (*used)(void);
    zaccount *(*account)(void);
    zaccount *(*new)(const char *name, zaccount *parent);
    int (*end)(zaccount *a);
    bool (*charge)(zaccount *a, size_t n);
    void (*uncharge)(zaccount *a, size_t n);
    void *(*alloc)(void *ud, void *ptr, size_t osize, size_t nsize);
    int (*limit)(zaccount *a, size_t limit, size_t reserve);
    void (*stats)(const zaccount *a, struct zaccount_figures *out);
    size_t (*total)(void);
} other;

static void bind(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);
    if (!address)
        printf("no %s\n", name), exit(1);
    memcpy(function, &address, sizeof address);
}

static void bind_all(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        printf("%s\n", dlerror()), exit(1);
    bind(library, "zmalloc", &other.malloc);
    bind(library, "zfree", &other.free);
    bind(library, "zmalloc_used_memory", &other.used);
    bind(library, "zmalloc_account", &other.account);
    bind(library, "zaccount_new", &other.new);
    bind(library, "zaccount_free", &other.end);
    bind(library, "zaccount_charge", &other.charge);
    bind(library, "zaccount_uncharge", &other.uncharge);
    bind(library, "zaccount_alloc", &other.alloc);
    bind(library, "zaccount_set_limit", &other.limit);
    bind(library, "zaccount_stats", &other.stats);
    bind(library, "zmalloc_total", &other.total);
    CHECK(other.new != zaccount_new, "these are two copies");
}

static void one_register(size_t total)
{
    CHECK(other.account() == zmalloc_account(), "there is one C account");
    void *p = zmalloc(1000), *q = other.malloc(500);
    const size_t size = zmalloc_size(p) + zmalloc_size(q);
    CHECK(zmalloc_used_memory() == size && other.used() == size, "both copies count into it");
    CHECK(zmalloc_total() == total + size && other.total() == total + size, "there is one total");
    other.free(p);
    zfree(q);
    CHECK(zmalloc_total() == total && other.used() == 0, "either copy frees the other's blocks");
}

/* An account that one copy made, used through the functions of the other. */
static void handed_over(zaccount *(*make)(const char *, zaccount *), int (*end)(zaccount *),
                        bool (*charge)(zaccount *, size_t), void (*uncharge)(zaccount *, size_t),
                        zaccount *(*make_child)(const char *, zaccount *),
                        int (*limit)(zaccount *, size_t, size_t))
{
    struct zaccount_figures mine, its;
    zaccount *a = make("parent", NULL), *b = make_child("child", a);
    CHECK(limit(a, 1000, 0) == 0, "limited by the other copy");
    CHECK(charge(b, 900) && !charge(b, 101) && charge(b, 100), "the parent's limit holds");
    zaccount_stats(a, &mine);
    other.stats(a, &its);
    CHECK(mine.used == 1000 && mine.refusals == 1 && mine.limit_hit, "the parent's figures");
    CHECK(its.used == 1000 && its.refusals == 1 && its.peak == 1000, "and through the other");
    zaccount_stats(b, &mine);
    CHECK(mine.used == 1000 && mine.refusals == 1 && !mine.limit_hit, "the child's figures");
    CHECK(end(a) == -1 && end(b) == -1, "neither can be ended");
    uncharge(b, 1000);
    void *p = zaccount_alloc(b, NULL, 0, 600);
    CHECK(p && !other.alloc(b, p, 600, 1001), "blocks under the parent's limit");
    CHECK((p = other.alloc(b, p, 600, 1000)) != NULL, "and up to it");
    CHECK(!other.alloc(b, p, 1000, 0) && zaccount_used(a) == 0, "freed by the other copy");
    CHECK(end(a) == -1, "it has a child");
    CHECK(end(b) == 0 && end(a) == 0, "ended by the other copy");
}

static _Atomic bool stop;

static void *come_and_go(void *unused)
{
    while (!stop) {
        zaccount *a = zaccount_new("ours", NULL), *b = other.new("theirs", a);
        zaccount_set_limit(b, 10, 0);
        other.end(b);
        zaccount_free(a);
    }
    return unused;
}

static void forks(void)
{
    pthread_t thread;
    int hung = 0, failed = 0;
    pthread_create(&thread, NULL, come_and_go, NULL);
    for (int i = 0; i < 100 && !hung; i++) {
        const pid_t pid = fork();
        if (pid == 0) {
            alarm(10);
            zaccount *a = other.new("a", NULL), *b = zaccount_new("b", a);
            const bool fine = zaccount_charge(b, 10) && other.total() >= 10 && zmalloc_total() >= 7;
            zaccount_uncharge(b, 10);
            _exit(!(fine && other.limit(b, 1, 0) == 0 && other.end(b) == 0 && zaccount_free(a) == 0));
        }
        int status = 0;
        waitpid(pid, &status, 0);
        hung += WIFSIGNALED(status);
        failed += WIFEXITED(status) && WEXITSTATUS(status);
    }
    stop = true;
    pthread_join(thread, NULL);
    CHECK(hung == 0, "no child hangs on the register");
    CHECK(failed == 0, "a child can go on");
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    const size_t total = zmalloc_total();
    zaccount *before = zaccount_new("made before the other copy came", NULL);
    zaccount_charge(before, 7);
    bind_all(argv[1]);
    if (strcmp(argv[2], "shared") == 0) {
        CHECK(other.total() == total + 7, "what was there before is in the total");
        one_register(total + 7);
    } else {
        CHECK(other.total() == 0, "a program that exports nothing is not found");
        CHECK(other.account() != zmalloc_account(), "there are two C accounts");
    }
    handed_over(zaccount_new, other.end, other.charge, other.uncharge, other.new, other.limit);
    handed_over(other.new, zaccount_free, zaccount_charge, zaccount_uncharge, zaccount_new,
                zaccount_set_limit);
    handed_over(zaccount_new, zaccount_free, other.charge, zaccount_uncharge, zaccount_new,
                other.limit);
    forks();
    other.uncharge(before, 7);
    CHECK(other.end(before) == 0 && zmalloc_total() == total, "nothing is left");
    return check_report();
}
