/* accounts.c - accounts under threads: caps that hold to the byte, counters that come back to
 * nothing, marks that are set while others charge. */
#include "check.h"
#include "zaccount.h"

#include <sched.h>

static _Atomic bool stop;

static void pause_us(long microseconds)
{
    const struct timespec t = {0, microseconds * 1000};
    nanosleep(&t, NULL);
}

/* Ends an account that must be at nothing. */
static void finish(zaccount *a)
{
    CHECK(zaccount_used(a) == 0, "nothing is charged at the end");
    CHECK(zaccount_free(a) == 0, "an account at nothing can be ended");
}

/* Two threads that go round by round. */
#if defined(__has_feature)
#define HAS_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define HAS_TSAN 1
#else
#define HAS_TSAN 0
#endif

enum { ROUNDS = HAS_TSAN ? 10000 : 100000 };

static _Atomic long step[2];

static void begin_steps(void)
{
    step[0] = step[1] = 0;
}

static void meet(int number, long i)
{
    step[number] = i;
    for (int spins = 1; step[!number] < i; spins++)
        if (spins % 1024 == 0)
            sched_yield();
}

/* ---- fixed caps: never a byte over, seen from every thread ---------------------------------- */

enum { TOP_LIMIT = 64 << 10, TOP_RESERVE = 8 << 10, MID_LIMIT = 40 << 10, MID_RESERVE = 4 << 10,
       LEAF_LIMIT = 24 << 10, HELD = 24 };

static zaccount *top, *mid[2], *leaf[4];

struct charge {
    zaccount *a;
    void *block;
    size_t size;
};

static size_t hard_limit(zaccount *a)
{
    struct zaccount_figures f;
    zaccount_stats(a, &f);
    return f.hard_limit;
}

static void look(zaccount *a)
{
    for (; a; a = zaccount_parent(a)) {
        CHECK(zaccount_used(a) <= hard_limit(a), "use is within the ceiling");
        CHECK(zaccount_peak(a) <= hard_limit(a), "so is the peak");
    }
}

static void release(struct charge *c)
{
    if (c->block)
        zaccount_alloc(c->a, c->block, c->size, 0);
    else if (c->a)
        zaccount_uncharge(c->a, c->size);
    *c = (struct charge){0};
}

static void take(struct charge *c, uint64_t *seed)
{
    zaccount *all[] = {leaf[0], leaf[1], leaf[2], leaf[3], leaf[0], leaf[1], mid[0], mid[1], top};
    c->a = all[below(seed, 9)];
    c->size = 1 + below(seed, 2500);
    bool granted = true;
    if (below(seed, 4) == 0)
        granted = (c->block = zaccount_alloc(c->a, NULL, 0, c->size)) != NULL;
    else
        granted = zaccount_charge(c->a, c->size);
    if (granted)
        look(c->a);
    else
        c->a = NULL;
}

static void change(struct charge *c, uint64_t *seed)
{
    const size_t size = 1 + below(seed, 2500);
    void *p = zaccount_alloc(c->a, c->block, c->size, size);
    CHECK(p || size > c->size, "a shrink never fails");
    if (p) {
        c->block = p;
        c->size = size;
        look(c->a);
    }
}

static void charge_trees(int number, uint64_t *seed)
{
    (void)number;
    struct charge held[HELD] = {{0}};
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 64 || check_now() < end; i++) {
        struct charge *c = &held[below(seed, HELD)];
        if (!c->a)
            take(c, seed);
        else if (c->block && below(seed, 2))
            change(c, seed);
        else
            release(c);
        if (below(seed, 100) == 0 && zaccount_charge(leaf[0], 100))
            zaccount_give_back(leaf[0], 100);
    }
    for (int i = 0; i < HELD; i++)
        release(&held[i]);
}

static void fixed_caps(void)
{
    const size_t total = zmalloc_total();
    top = zaccount_new("top", NULL);
    zaccount_set_limit(top, TOP_LIMIT, TOP_RESERVE);
    for (int i = 0; i < 2; i++) {
        mid[i] = zaccount_new("mid", top);
        zaccount_set_limit(mid[i], MID_LIMIT, i ? MID_RESERVE : 0);
    }
    for (int i = 0; i < 4; i++) {
        leaf[i] = zaccount_new("leaf", mid[i / 2]);
        zaccount_set_limit(leaf[i], LEAF_LIMIT, 0);
    }
    together(THREADS, charge_trees);
    zaccount *all[] = {leaf[0], leaf[1], leaf[2], leaf[3], mid[0], mid[1], top};
    for (int i = 0; i < 7; i++) {
        struct zaccount_figures f;
        CHECK(zaccount_charge(all[i], 1), "at nothing there is room");
        zaccount_uncharge(all[i], 1);
        zaccount_stats(all[i], &f);
        CHECK(f.allocations == f.frees, "as many blocks were freed as made");
        CHECK(!f.reserve_open, "the reserve has closed");
        CHECK(f.refusals > 0, "the caps had something to do");
        finish(all[i]);
    }
    CHECK(zmalloc_total() == total, "the total is where it was");
}

/* ---- a limit that moves ------------------------------------------------------------------- */

/* A charge that was granted while one limit was in force from before it began leaves no more granted
 * than that limit; and what is granted stays within it until the next limit. The ledger holds what
 * the threads know to be granted: less than use at every moment, if use is right. */
enum { MOST = 60000 };

static zaccount *moving;
static _Atomic size_t generation, in_force, ledger;

static void move_limit(uint64_t *seed)
{
    const double end = check_now() + check_seconds;
    while (check_now() < end) {
        const size_t limit = below(seed, MOST), reserve = below(seed, 2) ? MOST - limit : 0;
        atomic_fetch_add(&generation, 1);
        zaccount_set_limit(moving, limit, reserve);
        in_force = limit + reserve;
        atomic_fetch_add(&generation, 1);
        pause_us((long)below(seed, 200));
    }
    stop = true;
}

static void charge_under_it(int number, uint64_t *seed)
{
    if (number == 0) {
        move_limit(seed);
        return;
    }
    size_t held[HELD] = {0};
    while (!stop) {
        size_t *c = &held[below(seed, HELD)];
        if (*c) {
            atomic_fetch_sub(&ledger, *c);
            zaccount_uncharge(moving, *c);
            *c = 0;
            continue;
        }
        const size_t n = 1 + below(seed, 1500), before = generation, cap = in_force;
        if (!zaccount_charge(moving, n))
            continue;
        *c = n;
        const size_t known = atomic_fetch_add(&ledger, n) + n;
        if (before % 2 == 0 && generation == before)
            CHECK(known <= cap, "what is granted is within the limit in force");
        CHECK(zaccount_used(moving) <= MOST, "use is within the highest limit there ever was");
    }
    for (int i = 0; i < HELD; i++) {
        atomic_fetch_sub(&ledger, held[i]);
        zaccount_uncharge(moving, held[i]);
    }
}

static void moving_limit(void)
{
    stop = false;
    moving = zaccount_new("moving", NULL);
    zaccount_set_limit(moving, MOST, 0);
    in_force = MOST;
    together(THREADS, charge_under_it);
    CHECK(zaccount_peak(moving) <= MOST, "the peak is within it, too");
    CHECK(ledger == 0, "the ledger is empty");
    finish(moving);
}

/* A limit comes down while one thread charges byte by byte: what is granted after that was begun before
 * the limit came, so it is in use already when set_limit returns. */
static _Atomic size_t when_set;

static void lower_while_rising(int number, uint64_t *seed)
{
    for (long i = 1; i <= ROUNDS; i++) {
        meet(number, 2 * i);
        if (number == 0) {
            while (zaccount_charge(moving, 1))
                ;
        } else {
            for (volatile size_t j = below(seed, 200); j > 0; j--)
                ;
            zaccount_set_limit(moving, 0, 0);
            when_set = zaccount_used(moving);
        }
        meet(number, 2 * i + 1);
        if (number)
            continue;
        CHECK(zaccount_used(moving) <= when_set, "nothing is granted after the limit has come");
        zaccount_uncharge(moving, zaccount_used(moving));
        zaccount_set_limit(moving, 100000, 0);
    }
}

static void lowered_limit(void)
{
    moving = zaccount_new("lowered", NULL);
    zaccount_set_limit(moving, 100000, 0);
    begin_steps();
    together(2, lower_while_rising);
    finish(moving);
}

/* ---- fault injection: exactly as many as were asked for --------------------------------------- */

static zaccount *faulty;
static _Atomic long refused;

static void charge_faulty(int number, uint64_t *seed)
{
    (void)number, (void)seed;
    for (int i = 0; i < 2000; i++)
        if (zaccount_charge(faulty, 1))
            zaccount_uncharge(faulty, 1);
        else
            refused++;
}

static void faults(void)
{
    struct zaccount_figures f;
    faulty = zaccount_new("faulty", NULL);
    zaccount_fail_after(faulty, 1000, 500);
    together(THREADS, charge_faulty);
    zaccount_stats(faulty, &f);
    CHECK(refused == 500 && f.refusals == 500, "as many requests failed as were to");
    CHECK(!f.limit_hit && f.last_refused == 1, "an injected failure is no limit");
    uint64_t passed, failed;
    zaccount_faults(faulty, &passed, &failed);
    CHECK(failed == 500 && passed == (uint64_t)THREADS * 2000 - 500, "each request of each thread is counted once");
    finish(faulty);
}

/* ---- accounts that come and go --------------------------------------------------------------- */

static zaccount *family;

static void live(int number, uint64_t *seed)
{
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 16 || check_now() < end; i++) {
        zaccount *a = zaccount_new("a", below(seed, 2) ? family : NULL);
        zaccount *b = zaccount_new("b", a);
        CHECK(zaccount_charge(b, 10) && zaccount_used(a) == 10, "a child's charge is its parent's");
        CHECK(zmalloc_total() >= 10, "the total holds it");
        CHECK(zaccount_free(a) == -1, "an account with a child lives on");
        zaccount_uncharge(b, 10);
        CHECK(zaccount_free(b) == 0 && zaccount_free(a) == 0, "children first");
    }
    (void)number;
}

static void lives(void)
{
    const size_t total = zmalloc_total();
    family = zaccount_new("family", NULL);
    together(THREADS, live);
    finish(family);
    CHECK(zmalloc_total() == total, "the total is where it was");
}

/* ---- a callback that is changed while others pass its mark -------------------------------------- */

static zaccount *pressed;
static int first_ud, second_ud;
static _Atomic long calls;

static void first(zaccount *a, size_t used, void *ud)
{
    CHECK(ud == &first_ud && a == pressed && used > 500, "a callback gets what it was set with");
    calls++;
}

static void second(zaccount *a, size_t used, void *ud)
{
    CHECK(ud == &second_ud && a == pressed && used > 900, "a callback gets what it was set with");
    calls++;
}

static void press(int number, uint64_t *seed)
{
    if (number == 0) {
        const double end = check_now() + check_seconds;
        while (check_now() < end) {
            const bool one = below(seed, 2);
            zaccount_on_pressure(pressed, one ? 500 : 900, one ? first : second,
                                 one ? &first_ud : &second_ud);
            if (below(seed, 8) == 0)
                zaccount_on_pressure(pressed, 0, NULL, NULL);
        }
        stop = true;
        return;
    }
    while (!stop) {
        const size_t n = 400 + below(seed, 800); /* one alone passes */
        if (zaccount_charge(pressed, n))
            zaccount_uncharge(pressed, n);
    }
}

static void pressure(void)
{
    stop = false;
    pressed = zaccount_new("pressed", NULL);
    zaccount_set_limit(pressed, 20000, 100);
    together(THREADS, press);
    /* After all that it runs once each time, no more and no less. */
    zaccount_on_pressure(pressed, 500, first, &first_ud);
    for (int i = 0; i < 3; i++) {
        calls = 0;
        for (int j = 0; j < 10; j++)
            CHECK(zaccount_charge(pressed, 100), "there is room");
        CHECK(calls == 1, "once each time use passes the mark");
        zaccount_uncharge(pressed, 1000);
    }
    finish(pressed);
}

/* A callback is set while use falls through its mark: it must be ready for the next time. */
static void set_while_falling(int number, uint64_t *seed)
{
    for (long i = 1; i <= ROUNDS; i++) {
        if (number == 0)
            CHECK(zaccount_charge(pressed, 1000), "there is room");
        meet(number, 2 * i);
        for (volatile size_t j = below(seed, number ? 20 : 120); j > 0; j--)
            ;
        if (number == 0)
            zaccount_uncharge(pressed, 1000);
        else
            zaccount_on_pressure(pressed, 500, first, &first_ud);
        meet(number, 2 * i + 1);
        if (number)
            continue;
        calls = 0;
        CHECK(zaccount_charge(pressed, 501) && calls == 1, "it runs the next time");
        zaccount_uncharge(pressed, 501);
    }
}

static void falling_pressure(void)
{
    pressed = zaccount_new("pressed", NULL);
    begin_steps();
    together(2, set_while_falling);
    finish(pressed);
}

/* The mark stands still: how often it runs is bounded by how often use can have passed it. */
static _Atomic long passes;

static void pass(int number, uint64_t *seed)
{
    (void)number;
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 64 || check_now() < end; i++) {
        const size_t n = 1 + below(seed, 400);
        if (!zaccount_charge(pressed, n))
            continue;
        passes++;
        zaccount_uncharge(pressed, n);
    }
}

static void steady_pressure(void)
{
    pressed = zaccount_new("pressed", NULL);
    zaccount_on_pressure(pressed, 500, first, &first_ud);
    calls = passes = 0;
    together(THREADS, pass);
    CHECK(calls > 0 && calls <= passes, "no more often than use can have passed the mark");
    calls = 0;
    CHECK(zaccount_charge(pressed, 501) && calls == 1, "and it has not been forgotten");
    zaccount_uncharge(pressed, 501);
    finish(pressed);
}

/* ---- a seal: marks only fall ---------------------------------------------------------------- */

static zaccount *sealed;

static void lower(int number, uint64_t *seed)
{
    size_t limit = SIZE_MAX, hard = SIZE_MAX;
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 16 || check_now() < end; i++) {
        struct zaccount_figures f;
        zaccount_stats(sealed, &f);
        CHECK(f.limit <= limit && f.hard_limit <= hard, "no mark rises under a seal");
        limit = f.limit, hard = f.hard_limit;
        const size_t wanted = number == 0 ? limit - below(seed, 3) : below(seed, SIZE_MAX / 2);
        zaccount_set_limit(sealed, wanted, below(seed, 1000));
    }
}

static void seals(void)
{
    sealed = zaccount_new("sealed", NULL);
    zaccount_set_limit(sealed, SIZE_MAX / 2, 1000);
    zaccount_seal(sealed);
    together(THREADS, lower);
    finish(sealed);
}

/* ---- the peak ------------------------------------------------------------------------------ */

/* One thread rises a byte further each time. A reader may miss the maximum that is ending at this very
 * instant, and none before it. */
static zaccount *peaky;
static _Atomic size_t reached;

static void rise_and_read(int number, uint64_t *seed)
{
    (void)seed;
    const double end = check_now() + check_seconds;
    if (number == 0) {
        for (size_t n = 1; n % 64 || check_now() < end; n++) {
            CHECK(zaccount_charge(peaky, n), "there is no cap");
            reached = n;
            zaccount_uncharge(peaky, n);
        }
        stop = true;
        return;
    }
    while (!stop) {
        const size_t most = reached;
        CHECK(zaccount_peak(peaky) + 1 >= most, "the peak forgets nothing");
    }
}

/* Without refusals no charge is ever taken back: what a thread saw in use, the peak knows. */
static void rise_and_fall(int number, uint64_t *seed)
{
    (void)number;
    size_t seen = 0;
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 64 || check_now() < end; i++) {
        const size_t n = 1 + below(seed, 10000);
        CHECK(zaccount_charge(peaky, n), "there is no cap");
        const size_t used = zaccount_used(peaky);
        seen = used > seen ? used : seen;
        zaccount_uncharge(peaky, n);
        CHECK(zaccount_peak(peaky) >= n, "nor what was one's own");
    }
    size_t most = reached;
    while (most < seen && !atomic_compare_exchange_weak(&reached, &most, seen))
        ;
}

static void peaks(void)
{
    stop = false;
    peaky = zaccount_new("peaky", NULL);
    together(2, rise_and_read);
    CHECK(zaccount_peak(peaky) == reached, "the peak is the most there was, to the byte");
    zaccount_reset_peak(peaky);
    CHECK(zaccount_peak(peaky) == 0, "a new count begins with what is in use");
    reached = 0;
    together(THREADS, rise_and_fall);
    CHECK(zaccount_peak(peaky) >= reached, "the peak is no less than anybody saw");
    CHECK(zaccount_peak(peaky) <= THREADS * 10000, "nor more than there can have been");
    finish(peaky);
}

/* ---- scopes that come and go while others charge ---------------------------------------------- */

static zaccount *scoped;
static _Atomic int scopers;
static _Atomic size_t most_seen;

static void enter_and_leave(uint64_t *seed)
{
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 16 || check_now() < end; i++) {
        struct zaccount_scope outer = {.limit = ZACCOUNT_UNLIMITED};
        struct zaccount_scope inner = {.limit = below(seed, MOST), .reserve = below(seed, 500)};
        zaccount_enter(scoped, &outer);
        const size_t seen = zaccount_used(scoped);
        zaccount_enter(scoped, &inner);
        pause_us((long)below(seed, 50));
        struct zaccount_figures f;
        zaccount_stats(scoped, &f);
        CHECK(f.limit <= inner.limit, "no limit above a scope's is in force");
        const bool outer_first = below(seed, 2);
        zaccount_leave(scoped, outer_first ? &outer : &inner);
        zaccount_leave(scoped, outer_first ? &inner : &outer);
        size_t most = most_seen;
        while (most < seen && !atomic_compare_exchange_weak(&most_seen, &most, seen))
            ;
        CHECK(outer.peak <= MOST, "nor more than there can have been");
    }
    if (--scopers == 0)
        stop = true;
}

static void charge_in_scopes(int number, uint64_t *seed)
{
    if (number < 2) {
        enter_and_leave(seed);
        return;
    }
    struct charge held[HELD] = {{0}};
    while (!stop) {
        struct charge *c = &held[below(seed, HELD)];
        if (c->block) {
            release(c);
            continue;
        }
        const size_t n = 1 + below(seed, 4000);
        c->a = scoped;
        c->size = n;
        c->block = zaccount_alloc(scoped, NULL, 4, n);
        if (!c->block && below(seed, 2)) /* as an interpreter does: collect, then the same again */
            c->block = zaccount_alloc(scoped, NULL, 4, n);
        if (!c->block)
            *c = (struct charge){0};
        CHECK(zaccount_used(scoped) <= MOST, "use is within the owner's limit");
    }
    for (int i = 0; i < HELD; i++)
        release(&held[i]);
}

static void scopes(void)
{
    struct zaccount_figures f;
    stop = false;
    scopers = 2;
    most_seen = 0;
    scoped = zaccount_new("scoped", NULL);
    zaccount_set_limit(scoped, MOST - 500, 500);
    together(THREADS, charge_in_scopes);
    zaccount_stats(scoped, &f);
    CHECK(f.limit == MOST - 500 && f.hard_limit == MOST, "all scopes have gone");
    CHECK(f.peak >= most_seen, "what was seen while scopes came and went is in the peak");
    CHECK(f.refusals > 0 && f.retries > 0, "the caps had something to do");
    CHECK(f.allocations == f.frees && f.peak <= MOST, "and everything has come back");
    CHECK(zaccount_charge(scoped, 100), "at nothing there is room");
    zaccount_uncharge(scoped, 100);
    finish(scoped);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } part[] = {{"caps", fixed_caps}, {"moving", moving_limit}, {"faults", faults},
                {"lives", lives},     {"pressure", pressure},   {"steady", steady_pressure},
                {"seals", seals},     {"peaks", peaks},         {"falling", falling_pressure},
                {"lowered", lowered_limit}, {"scopes", scopes}};
    check_arguments(argc, argv);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (check_wants(argc, argv, part[i].name))
            part[i].run();
    return check_report();
}
