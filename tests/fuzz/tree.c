/* tree.c - fuzz target: a tree of accounts against a model of it, which says of each request whether it is
 * granted and of each account all of its figures. Written from zaccount.h.
 *
 * What a caller does that collects its garbage and asks again is not in here: blocks are of kind 0. */
#include "stream.h"
#include "zaccount.h"

enum { ACCOUNTS = 6, SCOPES = 3, BLOCKS = 8 };

struct marks {
    size_t limit, hard;
};

struct block {
    unsigned char *at;
    size_t size;
    unsigned char fill;
};

struct model {
    zaccount *it;
    struct model *parent;
    size_t used, peak, guest_peak, children, close, charged, blocks;
    uint64_t allocations, frees, refusals, passed, failed;
    size_t last_refused;
    int64_t pass_first, then_refuse;
    bool hit, open, sealed, guest_sealed, injects;
    struct marks own, guest, force;
    struct block block[BLOCKS];
    struct zaccount_scope scope[SCOPES];
    size_t scope_peak[SCOPES];
    bool entered[SCOPES];
};

static struct model tree[ACCOUNTS];
static const struct marks none = {ZACCOUNT_UNLIMITED, ZACCOUNT_UNLIMITED};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t capped_sum(size_t a, size_t b)
{
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

/* ---- the model --------------------------------------------------------------------------- */

static bool is_above(size_t used, size_t n, size_t mark)
{
    return n > SIZE_MAX - used || used + n > mark;
}

static bool note_refusal(struct model *m, size_t n)
{
    m->refusals++;
    m->last_refused = n;
    return false;
}

/* True if m and all above it take n bytes; else *reserve is that of the cap that refused. */
static bool climb(struct model *m, size_t n, bool opened, size_t *reserve)
{
    const bool fails = m->pass_first == 0 && m->then_refuse != 0;
    *reserve = 0;
    if (m->injects) {
        m->passed += !fails;
        m->failed += fails;
    }
    m->pass_first -= m->pass_first > 0;
    if (fails) {
        m->then_refuse -= m->then_refuse > 0;
        return note_refusal(m, n);
    }
    if (is_above(m->used, n, opened ? m->force.hard : m->force.limit)) {
        m->hit = true;
        *reserve = m->force.hard - m->force.limit;
        return note_refusal(m, n);
    }
    if (m->parent && !climb(m->parent, n, opened, reserve))
        return note_refusal(m, n);
    m->used += n;
    return true;
}

static bool grow(struct model *m, size_t n)
{
    size_t reserve;
    if (n == 0 || climb(m, n, m->open, &reserve))
        return true;
    if (reserve > 0 && !m->open) {
        m->open = true;
        if (is_above(m->used, n, m->force.limit))
            m->close = m->force.limit - least(m->force.hard - m->force.limit, m->force.limit / 2);
        else
            m->close = m->used - least(reserve, m->used / 2);
    }
    return false;
}

static void settle_peaks(struct model *m)
{
    for (; m; m = m->parent) {
        m->peak = most(m->peak, m->used);
        m->guest_peak = most(m->guest_peak, m->used);
        for (size_t i = 0; i < SCOPES; i++)
            m->scope_peak[i] = most(m->scope_peak[i], m->used);
    }
}

static void drop(struct model *m, size_t n)
{
    for (; m; m = m->parent) {
        m->used -= n;
        if (m->open && m->used <= m->close)
            m->open = false;
    }
}

static void put_in_force(struct model *m)
{
    struct marks force = {least(m->own.limit, m->guest.limit), least(m->own.hard, m->guest.hard)};
    for (size_t i = 0; i < SCOPES; i++) {
        if (!m->entered[i])
            continue;
        force.limit = least(force.limit, m->scope[i].limit);
        force.hard = least(force.hard, capped_sum(m->scope[i].limit, m->scope[i].reserve));
    }
    if (force.limit != m->force.limit || force.hard != m->force.hard)
        m->open = false;
    m->force = force;
}

/* ---- the library ------------------------------------------------------------------------- */

static void compare(void)
{
    size_t total = 0;
    for (size_t i = 0; i < ACCOUNTS; i++) {
        const struct model *m = &tree[i];
        struct zaccount_figures f;
        uint64_t passed, failed;
        if (!m->it)
            continue;
        total += m->parent ? 0 : m->used;
        zaccount_stats(m->it, &f);
        MUST(f.used == m->used && zaccount_used(m->it) == m->used);
        MUST(f.peak == m->peak && zaccount_guest_peak(m->it) == m->guest_peak);
        MUST(f.limit == m->force.limit && f.hard_limit == m->force.hard);
        MUST(f.allocations == m->allocations && f.frees == m->frees);
        MUST(f.refusals == m->refusals && f.last_refused == m->last_refused);
        MUST(f.retries == 0 && f.overhead_refusals == 0);
        MUST(f.limit_hit == m->hit);
        MUST(f.reserve_open == m->open);
        MUST(f.sealed == m->sealed && f.guest_sealed == m->guest_sealed);
        zaccount_faults(m->it, &passed, &failed);
        MUST(passed == m->passed && failed == m->failed);
        for (size_t k = 0; k < SCOPES; k++)
            MUST(!m->entered[k] ||
                 zaccount_scope_peak(m->it, &tree[i].scope[k]) == m->scope_peak[k]);
    }
    MUST(zmalloc_total() == total);
}

static void begin(struct stream *s)
{
    struct model *m = &tree[take_below(s, ACCOUNTS)], *parent = &tree[take_below(s, ACCOUNTS)];
    const uint8_t choice = take(s);
    if (m->it)
        return;
    if (!parent->it || parent == m || choice % 4 == 0)
        parent = NULL;
    *m = (struct model){.parent = parent, .own = none, .guest = none, .force = none};
    m->it = zaccount_new("fuzz", parent ? parent->it : NULL);
    MUST(m->it && zaccount_parent(m->it) == (parent ? parent->it : NULL));
    if (parent)
        parent->children++;
    if (choice & 64)
        zaccount_set_single(m->it);
}

/* In any order. */
static void leave(struct model *m, size_t which)
{
    if (!m->entered[which])
        return;
    zaccount_leave(m->it, &m->scope[which]);
    MUST(m->scope[which].peak == m->scope_peak[which]);
    m->entered[which] = false;
    put_in_force(m);
}

static void end(struct model *m)
{
    const bool kept = m->used || m->children;
    for (size_t i = 0; i < SCOPES && !kept; i++)
        leave(m, i); /* or the library would keep what is the caller's */
    MUST(zaccount_free(m->it) == (kept ? -1 : 0));
    if (kept)
        return;
    if (m->parent)
        m->parent->children--;
    m->it = NULL;
}

/* An amount: small, what just fits below a mark of m's or one above it, more or less by one, or huge. */
static size_t take_amount(struct stream *s, const struct model *m)
{
    const uint8_t choice = take(s);
    if (choice < 160)
        return choice;
    if (choice < 168)
        return (size_t)take_wide(s);
    if (m->parent && choice & 8)
        m = m->parent;
    const size_t mark = choice & 1 ? m->force.limit : m->force.hard;
    return mark < m->used || mark - m->used > 4096 ? choice : mark - m->used + (choice >> 1) % 3 - 1;
}

static void charge(struct stream *s, struct model *m, bool is_kept)
{
    size_t n = take_amount(s, m);
    if (n > (size_t)1 << 40 && m->force.hard == SIZE_MAX)
        n &= 0xffff; /* nothing would refuse it, and sums must not wrap around */
    const bool granted = grow(m, n);
    MUST(zaccount_charge(m->it, n) == granted);
    if (!granted)
        return;
    if (is_kept) {
        m->charged += n;
        settle_peaks(m);
    } else {
        zaccount_give_back(m->it, n);
        drop(m, n);
    }
}

static void uncharge(struct stream *s, struct model *m)
{
    const uint8_t choice = take(s);
    const size_t n = choice & 1 ? m->charged : least(m->charged, choice);
    m->charged -= n;
    zaccount_uncharge(m->it, n);
    drop(m, n);
}

static void look_at(const struct block *b, size_t length)
{
    for (size_t i = 0; i < length; i++)
        MUST(b->at[i] == b->fill);
}

static void fill(struct block *b, unsigned char *at, size_t size, uint8_t with)
{
    *b = (struct block){at, size, with};
    memset(at, with, size);
}

static void allocate(struct stream *s, struct model *m)
{
    const size_t n = take_amount(s, m) & 0xfff;
    if (m->blocks == BLOCKS)
        return;
    const bool granted = n && grow(m, n);
    unsigned char *p = zaccount_alloc(m->it, NULL, 0, n);
    MUST((p != NULL) == granted);
    if (!p)
        return;
    m->allocations++;
    settle_peaks(m);
    fill(&m->block[m->blocks++], p, n, take(s));
}

static void resize(struct stream *s, struct model *m)
{
    const size_t n = take_amount(s, m) & 0xfff;
    if (!m->blocks)
        return;
    struct block *b = &m->block[take_below(s, m->blocks)];
    if (n == b->size)
        return; /* whether that is a fall of use, which may close the reserve, is not said */
    const bool grows = n > b->size, granted = !grows || grow(m, n - b->size);
    unsigned char *p = zaccount_alloc(m->it, b->at, b->size, n);
    if (n == 0) {
        MUST(!p);
        m->frees++;
        drop(m, b->size);
        *b = m->block[--m->blocks];
        return;
    }
    MUST((p != NULL) == granted);
    if (!p) {
        look_at(b, b->size);
        return;
    }
    if (!grows)
        drop(m, b->size - n);
    settle_peaks(m);
    b->at = p;
    look_at(b, least(n, b->size));
    fill(b, p, n, take(s));
}

/* A limit near to what is in use, or anywhere. */
static struct marks take_marks(struct stream *s, const struct model *m, size_t *reserve)
{
    const uint8_t choice = take(s);
    const size_t near = capped_sum(m->used, choice % 64);
    const size_t limit = choice >= 240 ? ZACCOUNT_UNLIMITED : choice >= 128 ? take(s) * 4u : near;
    *reserve = take(s) >> 1;
    if (*reserve > 120)
        *reserve = (size_t)take_wide(s);
    return (struct marks){limit, capped_sum(limit, *reserve)};
}

static bool rises(struct marks to, struct marks from)
{
    return to.limit > from.limit || to.hard > from.hard;
}

static void set_marks(struct stream *s, struct model *m, bool is_guest)
{
    size_t reserve;
    const struct marks to = take_marks(s, m, &reserve);
    struct marks *set = is_guest ? &m->guest : &m->own;
    const bool refused = (is_guest ? m->guest_sealed : m->sealed) && rises(to, *set);
    MUST((is_guest ? zaccount_guest_limit : zaccount_set_limit)(m->it, to.limit, reserve) ==
         (refused ? -1 : 0));
    if (refused)
        return;
    *set = to;
    m->open = false;
    put_in_force(m);
}

static void enter(struct stream *s, struct model *m)
{
    size_t reserve;
    const struct marks to = take_marks(s, m, &reserve);
    const size_t which = take_below(s, SCOPES);
    if (m->entered[which])
        return;
    m->scope_peak[which] = m->used;
    m->scope[which] = (struct zaccount_scope){to.limit, reserve, 0, NULL};
    m->entered[which] = true;
    zaccount_enter(m->it, &m->scope[which]);
    put_in_force(m);
}

static void fail_after(struct stream *s, struct model *m)
{
    const int64_t n = (int64_t)take_below(s, 6) - 1, repeat = (int64_t)take_below(s, 5) - 1;
    zaccount_fail_after(m->it, n, repeat);
    m->injects = n >= 0 && repeat != 0;
    m->pass_first = m->injects ? n : 0;
    m->then_refuse = m->injects ? repeat : 0;
    if (m->injects)
        m->passed = m->failed = 0;
}

static void seal_or_reset(struct stream *s, struct model *m)
{
    switch (take_below(s, 8)) {
    case 0:
        zaccount_seal(m->it);
        m->sealed = true;
        break;
    case 1:
        zaccount_guest_seal(m->it);
        m->guest_sealed = true;
        break;
    case 2: case 3:
        zaccount_reset_peak(m->it);
        m->peak = m->used;
        break;
    case 4: case 5:
        zaccount_guest_reset_peak(m->it);
        m->guest_peak = m->used;
        break;
    default:
        zaccount_clear_hit(m->it);
        m->hit = false;
    }
}

static void step(struct stream *s)
{
    const uint8_t what = take(s);
    struct model *m = &tree[(what >> 4) % ACCOUNTS];
    if (!m->it || (what & 15) == 15) {
        begin(s);
        return;
    }
    switch (what & 15) {
    case 0: case 1: case 2: charge(s, m, true); break;
    case 3: charge(s, m, false); break;
    case 4: case 5: uncharge(s, m); break;
    case 6: case 7: allocate(s, m); break;
    case 8: resize(s, m); break;
    case 9: set_marks(s, m, false); break;
    case 10: set_marks(s, m, true); break;
    case 11: enter(s, m); break;
    case 12: leave(m, take_below(s, SCOPES)); break;
    case 13: fail_after(s, m); break;
    default:
        if (take(s) & 1)
            seal_or_reset(s, m);
        else
            end(m);
    }
}

/* Brings everything to its end, children first. */
static void end_all(void)
{
    for (size_t i = 0; i < ACCOUNTS; i++) {
        struct model *m = &tree[i];
        if (!m->it)
            continue;
        for (size_t k = 0; k < SCOPES; k++)
            leave(m, k);
        zaccount_uncharge(m->it, m->charged);
        drop(m, m->charged);
        while (m->blocks) {
            const struct block *b = &m->block[--m->blocks];
            look_at(b, b->size);
            MUST(!zaccount_alloc(m->it, b->at, b->size, 0));
            drop(m, b->size);
        }
    }
    for (size_t left = 1; left;) {
        left = 0;
        for (size_t i = 0; i < ACCOUNTS; i++) {
            left += tree[i].it != NULL;
            if (tree[i].it && !tree[i].children)
                end(&tree[i]);
        }
    }
    MUST(zmalloc_total() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stream s = {data, data + (size < 1000 ? size : 1000)};
    while (!is_over(&s)) {
        step(&s);
        compare();
    }
    end_all();
    return 0;
}
