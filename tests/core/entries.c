/* entries.c - each function of the headers with each of its requests refused: by the heap, or on request by its
 * account, once and for ever. NULL, false or a success; nothing is left, and what is counted is what there is.
 *
 * test_entries.py compares the names with the headers. */
#include "check.h"
#include "zaccount.h"
#include "zmalloc.h"
#include "zsize.h"

/* ---- a heap that says no (-Wl,--wrap=malloc and so on) ------------------------------------------------ */

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_realloc(void *p, size_t n);
void __real_free(void *p);
void __wrap_free(void *p);

static int64_t left = INT64_MAX, times;
static long refused, live; /* blocks */

static bool refuses(void)
{
    if (left > 0) {
        left--;
        return false;
    }
    if (times == 0)
        return false;
    if (times > 0)
        times--;
    refused++;
    return true;
}

static void *counted(void *p)
{
    live += p != NULL;
    return p;
}

void *__wrap_malloc(size_t n)
{
    return refuses() ? NULL : counted(__real_malloc(n));
}

void *__wrap_calloc(size_t count, size_t n)
{
    return refuses() ? NULL : counted(__real_calloc(count, n));
}

void *__wrap_realloc(void *p, size_t n)
{
    if (refuses())
        return NULL;
    return p ? __real_realloc(p, n) : counted(__real_malloc(n));
}

void __wrap_free(void *p)
{
    live -= p != NULL;
    __real_free(p);
}

/* ---- loads: each true when it had what it asked for ----------------------------------------------------- */

static zaccount *account;
static long oom_calls;

static void on_oom(size_t size)
{
    (void)size;
    oom_calls++;
}

static bool keeps(void *p, size_t usable)
{
    const bool is_exact = !p || usable == zmalloc_size(p);
    CHECK(is_exact, "the size that was told is the size that is counted");
    zfree(p);
    return p != NULL;
}

/* A block that cannot grow is as it was. */
static bool grows(void *(*resize)(void *, size_t))
{
    char *p = ztrymalloc(100);
    if (!p)
        return false;
    memset(p, 'x', 100);
    const size_t before = zmalloc_used_memory(), size = zmalloc_size(p);
    char *q = resize(p, 5000);
    const bool has_grown = q != NULL;
    if (!q) {
        CHECK(zmalloc_used_memory() == before && zmalloc_size(p) == size, "the old block is counted as it was");
        q = p;
    }
    CHECK(q[0] == 'x' && q[99] == 'x', "and has its bytes");
    zfree(q);
    return has_grown;
}

static void *resize_usable(void *p, size_t n)
{
    size_t usable = 1;
    void *q = zrealloc_usable(p, n, &usable);
    CHECK(q ? usable == zmalloc_size(q) : usable == 0, "the size is told on each way out");
    return q;
}

static void *try_resize_usable(void *p, size_t n)
{
    size_t usable = 1;
    void *q = ztryrealloc_usable(p, n, &usable);
    CHECK(q ? usable == zmalloc_size(q) : usable == 0, "the size is told on each way out");
    return q;
}

static bool takes(bool (*use)(zaccount *a))
{
    const size_t before = zaccount_used(account);
    const bool done = use(account);
    CHECK(zaccount_used(account) == before, "what was charged is given back");
    return done;
}

static bool charges(zaccount *a)
{
    if (!zaccount_charge(a, 1000))
        return false;
    CHECK(zaccount_peak(a) >= zaccount_used(a), "the peak is no less than use");
    zaccount_uncharge(a, 1000);
    return true;
}

static bool gives_back(zaccount *a)
{
    if (!zaccount_charge(a, 1000))
        return false;
    zaccount_give_back(a, 1000);
    return true;
}

static bool allocates(zaccount *a)
{
    char *p = zaccount_alloc(a, NULL, 4, 100);
    if (!p)
        return false;
    const size_t before = zaccount_used(a);
    char *q = zaccount_alloc(a, p, 100, 3000);
    CHECK(zaccount_used(a) == (q ? before + 2900 : before), "a block that cannot grow is counted as it was");
    q = zaccount_alloc(a, q ? q : p, q ? 3000 : 100, 10);
    CHECK(q, "a shrink never fails");
    if (q)
        zaccount_alloc(a, q, 10, 0);
    return q != NULL;
}

static bool makes_accounts(zaccount *a)
{
    zaccount *child = zaccount_new("child", a);
    if (!child)
        return false;
    const bool done = charges(child) && allocates(child);
    CHECK(zaccount_used(child) == 0 && zaccount_parent(child) == a, "a child gives all back");
    CHECK(strcmp(zaccount_name(child), "child") == 0, "and has its name");
    CHECK(zaccount_free(child) == 0, "and ends");
    return done;
}

static void no_callback(zaccount *a, size_t used, void *ud)
{
    (void)a, (void)used, (void)ud;
}

/* On an account of its own, for some of it cannot be taken back. */
static bool sets_marks(zaccount *unused)
{
    uint64_t kinds[ZACCOUNT_KINDS], passed, failed;
    struct zaccount_figures f;
    struct zaccount_scope scope = {.limit = 5000, .reserve = 0};
    zaccount *a = zaccount_new("marks", unused);
    if (!a)
        return false;
    zaccount_set_single(a);
    zaccount_set_overhead(a, 5, 8);
    zaccount_on_pressure(a, 10, no_callback, NULL);
    bool done = zaccount_set_limit(a, 10000, 0) == 0 && zaccount_guest_limit(a, 9000, 0) == 0;
    zaccount_enter(a, &scope);
    done = charges(a) && done;
    CHECK(zaccount_scope_peak(a, &scope) <= 5000 && zaccount_guest_peak(a) <= 9000, "caps hold");
    zaccount_leave(a, &scope);
    zaccount_guest_seal(a);
    zaccount_seal(a);
    CHECK(zaccount_set_limit(a, 20000, 0) == -1, "a seal holds");
    zaccount_reset_peak(a), zaccount_guest_reset_peak(a), zaccount_clear_hit(a);
    zaccount_kinds(a, kinds), zaccount_faults(a, &passed, &failed), zaccount_stats(a, &f);
    zaccount_fail_after(a, 0, 1);
    CHECK(!zaccount_charge(a, 1), "its own fault comes too");
    CHECK(f.used == 0 && zaccount_free(a) == 0, "all is given back");
    return done;
}

static size_t usable;

#define USABLE(call) (usable = 1, keeps_usable(call))
static bool keeps_usable(void *p)
{
    CHECK(p || usable == 0, "the size is told on each way out");
    return keeps(p, usable);
}

static bool frees_usable(void)
{
    void *p = ztrymalloc(100);
    const size_t size = zmalloc_size(p), before = zmalloc_used_memory();
    zfree_usable(p, &usable);
    CHECK(usable == size && zmalloc_used_memory() == before - size, "what is freed is what was counted");
    return p != NULL;
}

#define PLAIN(call) keeps_plain(call)
static bool keeps_plain(void *p)
{
    return keeps(p, zmalloc_size(p));
}

#define LOADS(X)                                                                                             \
    X(zmalloc, PLAIN(zmalloc(100)))                                                                          \
    X(zcalloc, PLAIN(zcalloc(100)))                                                                          \
    X(zcalloc_num, PLAIN(zcalloc_num(10, 10)))                                                               \
    X(zrealloc, grows(zrealloc))                                                                             \
    X(zfree, PLAIN(ztrymalloc(5000)))                                                                        \
    X(zstrdup, PLAIN(zstrdup("a text")))                                                                     \
    X(ztrymalloc, PLAIN(ztrymalloc(100)))                                                                    \
    X(ztrycalloc, PLAIN(ztrycalloc(100)))                                                                    \
    X(ztrycalloc_num, PLAIN(ztrycalloc_num(10, 10)))                                                         \
    X(ztryrealloc, grows(ztryrealloc))                                                                       \
    X(zmalloc_usable, USABLE(zmalloc_usable(100, &usable)))                                                  \
    X(zcalloc_usable, USABLE(zcalloc_usable(100, &usable)))                                                  \
    X(zrealloc_usable, grows(resize_usable))                                                                 \
    X(ztrymalloc_usable, USABLE(ztrymalloc_usable(100, &usable)))                                            \
    X(ztrycalloc_usable, USABLE(ztrycalloc_usable(100, &usable)))                                            \
    X(ztryrealloc_usable, grows(try_resize_usable))                                                          \
    X(zfree_usable, frees_usable())                                                                          \
    X(zmalloc_size, PLAIN(ztrymalloc(1)))                                                                    \
    X(zmalloc_usable_size, (zmalloc_usable_size(NULL) == 0))                                                 \
    X(zmalloc_set_oom_handler, (zmalloc_set_oom_handler(on_oom), true))                                      \
    X(zmalloc_version, (zmalloc_version() != NULL))                                                          \
    X(zmalloc_backend, (zmalloc_backend() != NULL))                                                          \
    X(zmalloc_used_memory, (zmalloc_used_memory() <= zmalloc_peak_memory()))                                 \
    X(zmalloc_peak_memory, (zmalloc_peak_memory() >= zmalloc_used_memory()))                                 \
    X(zmalloc_account, (zmalloc_account() != NULL))                                                          \
    X(zmalloc_get_rss, (zmalloc_get_rss() > 0))                                                              \
    X(zmalloc_get_memory_size, (zmalloc_get_memory_size() > 0))                                              \
    X(zmalloc_get_smap_bytes_by_field, (zmalloc_get_smap_bytes_by_field("Rss:", -1) > 0))                    \
    X(zmalloc_get_private_dirty, (zmalloc_get_private_dirty(-1) > 0))                                        \
    X(zmalloc_total, (zmalloc_total() >= zaccount_used(account)))                                            \
    X(zsize_parse, (zsize_parse("1.5g", 4, 0, &usable) == ZSIZE_OK))                                         \
    X(zsize_format, (zsize_format((char[ZSIZE_TEXT]){0}, 1 << 20) != NULL))                                  \
    X(zaccount_default, (zaccount_default() != NULL))                                                        \
    X(zaccount_charge, takes(charges))                                                                       \
    X(zaccount_uncharge, takes(charges))                                                                     \
    X(zaccount_give_back, takes(gives_back))                                                                 \
    X(zaccount_alloc, takes(allocates))                                                                      \
    X(zaccount_new, takes(makes_accounts))                                                                   \
    X(zaccount_free, takes(makes_accounts))                                                                  \
    X(zaccount_name, takes(makes_accounts))                                                                  \
    X(zaccount_parent, takes(makes_accounts))                                                                \
    X(zaccount_used, takes(charges))                                                                         \
    X(zaccount_peak, takes(charges))                                                                         \
    X(zaccount_set_single, takes(sets_marks))                                                                \
    X(zaccount_kinds, takes(sets_marks))                                                                     \
    X(zaccount_reset_peak, takes(sets_marks))                                                                \
    X(zaccount_stats, takes(sets_marks))                                                                     \
    X(zaccount_set_limit, takes(sets_marks))                                                                 \
    X(zaccount_seal, takes(sets_marks))                                                                      \
    X(zaccount_clear_hit, takes(sets_marks))                                                                 \
    X(zaccount_on_pressure, takes(sets_marks))                                                               \
    X(zaccount_set_overhead, takes(sets_marks))                                                              \
    X(zaccount_fail_after, takes(sets_marks))                                                                \
    X(zaccount_faults, takes(sets_marks))                                                                    \
    X(zaccount_enter, takes(sets_marks))                                                                     \
    X(zaccount_leave, takes(sets_marks))                                                                     \
    X(zaccount_scope_peak, takes(sets_marks))                                                                \
    X(zaccount_guest_limit, takes(sets_marks))                                                               \
    X(zaccount_guest_seal, takes(sets_marks))                                                                \
    X(zaccount_guest_peak, takes(sets_marks))                                                                \
    X(zaccount_guest_reset_peak, takes(sets_marks))

#define FUNCTION(name, expression)                                                                           \
    static bool load_##name(void)                                                                            \
    {                                                                                                        \
        return expression;                                                                                   \
    }
LOADS(FUNCTION)

#define ROW(name, expression) {#name, load_##name},
static const struct entry {
    const char *name;
    bool (*load)(void);
} entries[] = {LOADS(ROW)};

/* ---- in turn -------------------------------------------------------------------------------------------- */

static long runs, faults, errors;

static long blocks_of(const zaccount *a)
{
    struct zaccount_figures f;
    zaccount_stats(a, &f);
    return (long)(f.allocations - f.frees);
}

/* True when the fault came. */
static bool try_fault(const struct entry *e, bool by_heap, int64_t n, int64_t repeat)
{
    uint64_t passed = 0, failed = 0;
    const size_t used = zmalloc_used_memory(), total = zmalloc_total();
    const long blocks = live, counted_blocks = blocks_of(zmalloc_account());
    refused = 0;
    if (by_heap)
        left = n, times = repeat;
    else
        zaccount_fail_after(account, n, repeat);
    const bool done = e->load();
    left = INT64_MAX, times = 0;
    zaccount_fail_after(account, -1, 0);
    zaccount_faults(account, &passed, &failed);
    const long came = by_heap ? refused : (long)failed;
    runs++;
    faults += came;
    errors += !done;
    CHECK(done || came > 0, e->name);
    CHECK(zmalloc_used_memory() == used && zmalloc_total() == total, e->name);
    CHECK(live == blocks && blocks_of(zmalloc_account()) == counted_blocks, e->name);
    return came > 0;
}

int main(int argc, char **argv)
{
    check_arguments(argc, argv);
    account = zaccount_new("entries", NULL);
    zmalloc_set_oom_handler(on_oom);
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        printf("entry %s\n", entries[i].name);
        for (int pass = 0; pass < 2; pass++)
            CHECK(entries[i].load(), "without a fault it succeeds");
        for (int kind = 0; kind < 4; kind++)
            for (int64_t n = 0; n < 100 && try_fault(&entries[i], kind % 2, n, kind < 2 ? 1 : -1); n++)
                ;
    }
    CHECK(oom_calls > 0, "the handler was called");
    CHECK(zaccount_free(account) == 0, "and all is given back");
    printf("{\"front\": \"C\", \"with\": \"%s\", \"entries\": %zu, \"runs\": %ld, \"faults\": %ld, \"errors\": %ld, "
           "\"differences\": %ld}\n", zmalloc_version(), sizeof entries / sizeof *entries, runs, faults, errors,
           check_failed);
    return check_report();
}
