/* scopes.c - the set of limits.
 *
 * Invariants:
 *  - `set.lock` guards the set; nobody waits for anything while holding it, and nothing is allocated.
 *    It is free in a forked child.
 *  - The accounts' limits are the minima of the set, set again at each change. */
#define PY_SSIZE_T_CLEAN
#include "scopes.h"

#include "delivery.h"
#include "hooks.h"

const struct scope_marks scope_no_marks = {SIZE_MAX, SIZE_MAX, SIZE_MAX};

#define NO_MARKS {SIZE_MAX, SIZE_MAX, SIZE_MAX}

static struct {
    zport_mutex lock;
    struct scope *entered;     /* those whose with statement is running */
    struct scope_marks bare;   /* of the last bare call */
    struct scope_marks sealed; /* the minima of those that stay */
    uint64_t bare_number, sealed_number;
    uint64_t last_number;
    struct scope *all; /* those that an object stands for */
    size_t report_used, report_held; /* what reports have left behind, on top of every limit */
    size_t used_before_report, held_before_report, peak_before_report;
    bool is_reporting;
} set = {.lock = ZPORT_MUTEX_INIT, .bare = NO_MARKS, .sealed = NO_MARKS};

static _Atomic uint64_t number_in_force;

static const char bare_name[] = "limit", sealed_name[] = "sealed limit";

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t plus(size_t limit, size_t more)
{
    return limit > SIZE_MAX - more ? SIZE_MAX : limit + more;
}

static struct scope_marks both(struct scope_marks a, struct scope_marks b)
{
    return (struct scope_marks){smaller(a.limit, b.limit), smaller(a.hard, b.hard), smaller(a.held, b.held)};
}

/* ---- in force -------------------------------------------------------------------------------- */

static void join_minima(struct scope_marks *least, uint64_t *number, struct scope_marks marks, uint64_t own)
{
    if (marks.limit < least->limit)
        *number = own;
    *least = both(*least, marks);
}

/* set.lock is held. */
static struct scope_marks minima(uint64_t *number)
{
    struct scope_marks least = NO_MARKS;
    *number = 0;
    join_minima(&least, number, set.sealed, set.sealed_number);
    join_minima(&least, number, set.bare, set.bare_number);
    for (const struct scope *s = set.entered; s; s = s->next_entered)
        join_minima(&least, number, s->marks, s->number);
    return least;
}

/* set.lock is held. */
static void apply(void)
{
    uint64_t number;
    struct scope_marks least = minima(&number);
    if (hooks_held_is_used()) {
        least.limit = smaller(least.limit, least.held);
        least.hard = smaller(least.hard, least.held);
        least.held = SIZE_MAX;
    }
    const size_t limit = plus(least.limit, set.report_used), hard = plus(least.hard, set.report_used);
    atomic_store(&number_in_force, number);
    zaccount_set_limit(&python_account, limit, hard - limit);
    zaccount_set_limit(&held_account, plus(least.held, set.report_held), 0);
    delivery_limits_changed();
}

void scopes_mode_changed(void)
{
    zport_lock(&set.lock);
    apply();
    zport_unlock(&set.lock);
}

struct scope_marks scopes_in_force(void)
{
    uint64_t number;
    zport_lock(&set.lock);
    const struct scope_marks least = minima(&number);
    zport_unlock(&set.lock);
    return least;
}

struct scope_marks scopes_sealed(void)
{
    zport_lock(&set.lock);
    struct scope_marks marks = set.sealed;
    zport_unlock(&set.lock);
    if (hooks_held_is_used()) {
        marks.limit = smaller(marks.limit, marks.held);
        marks.hard = smaller(marks.hard, marks.held);
    }
    return marks;
}

uint64_t scopes_number(void)
{
    return atomic_load(&number_in_force);
}

uint64_t scopes_new_number(void)
{
    zport_lock(&set.lock);
    const uint64_t number = ++set.last_number;
    zport_unlock(&set.lock);
    return number;
}

const char *scopes_name(uint64_t number)
{
    const char *name = bare_name;
    zport_lock(&set.lock);
    if (number == set.sealed_number)
        name = sealed_name;
    for (const struct scope *s = set.all; s; s = s->next)
        if (s->number == number)
            name = s->name;
    zport_unlock(&set.lock);
    return name;
}

/* set.lock is held. */
static void seal(struct scope_marks marks)
{
    set.sealed = both(set.sealed, marks);
    set.sealed_number = ++set.last_number;
}

void scopes_seal(struct scope_marks marks)
{
    zport_lock(&set.lock);
    seal(marks);
    apply();
    zport_unlock(&set.lock);
}

/* set.lock is held. */
static bool is_any_sealed(void)
{
    return set.sealed.limit != SIZE_MAX || set.sealed.held != SIZE_MAX;
}

bool scopes_are_sealed(void)
{
    zport_lock(&set.lock);
    const bool is_sealed = is_any_sealed();
    zport_unlock(&set.lock);
    return is_sealed;
}

bool scopes_remove_bare(void)
{
    zport_lock(&set.lock);
    const bool is_sealed = is_any_sealed();
    if (!is_sealed) {
        set.bare = scope_no_marks;
        set.bare_number = 0;
        apply();
    }
    zport_unlock(&set.lock);
    return !is_sealed;
}

/* ---- what happens at the limit ----------------------------------------------------------------- */

void scopes_note_refusal(size_t n)
{
    const size_t used = zaccount_used(&python_account);
    zport_lock(&set.lock);
    for (struct scope *s = set.entered; s; s = s->next_entered)
        s->is_hit |= n > s->marks.limit || used > s->marks.limit - n;
    zport_unlock(&set.lock);
}

void scopes_note_crossing(size_t used)
{
    zport_lock(&set.lock);
    for (struct scope *s = set.entered; s; s = s->next_entered)
        s->is_unsettled |= used > s->marks.limit;
    zport_unlock(&set.lock);
}

void scopes_note_settled(size_t used)
{
    zport_lock(&set.lock);
    for (struct scope *s = set.entered; s; s = s->next_entered)
        s->is_unsettled &= used > s->marks.limit;
    zport_unlock(&set.lock);
}

void scopes_note_raised(uint64_t number)
{
    zport_lock(&set.lock);
    for (struct scope *s = set.entered; s; s = s->next_entered)
        s->is_hit |= s->number == number;
    zport_unlock(&set.lock);
    atomic_store(&python_account.hit, true);
}

/* ---- reports ------------------------------------------------------------------------------------- */

/* Modules: 3.13 imports some 2 MiB of them to show an exception. Without an end to it the words of a script that are
 * a part of a report (what its exception's __str__ keeps) would raise the limits each time. */
static const size_t most_left_by_reports = (size_t)4 << 20;

static size_t with_growth(size_t left, size_t before, size_t now)
{
    return smaller(now > before ? plus(left, now - before) : left, most_left_by_reports);
}

void scopes_report_begin(void)
{
    set.used_before_report = zaccount_used(&python_account);
    set.held_before_report = zaccount_used(&held_account);
    set.peak_before_report = zaccount_peak(&python_account);
    set.is_reporting = true;
    hooks_exempt(true);
}

size_t scopes_peak(void)
{
    const size_t peak = zaccount_peak(&python_account);
    return set.is_reporting && peak > set.peak_before_report ? set.peak_before_report : peak;
}

void scopes_report_end(void)
{
    uint64_t number;
    hooks_exempt(false);
    set.is_reporting = false;
    const size_t used = zaccount_used(&python_account), held = zaccount_used(&held_account);
    zport_lock(&set.lock);
    const struct scope_marks least = minima(&number);
    if (least.limit != SIZE_MAX || least.held != SIZE_MAX) {
        set.report_used = with_growth(set.report_used, set.used_before_report, used);
        set.report_held = with_growth(set.report_held, set.held_before_report, held);
        atomic_store(&python_account.peak, set.peak_before_report);
        apply();
    }
    zport_unlock(&set.lock);
}

/* ---- the life of a scope --------------------------------------------------------------------------- */

struct scope *scope_new(struct scope_marks marks, const char *name)
{
    struct scope *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->marks = marks;
    s->name = name;
    s->before = scope_no_marks;
    s->measure.limit = ZACCOUNT_UNLIMITED;
    zport_lock(&set.lock);
    s->number = ++set.last_number;
    s->next = set.all;
    set.all = s;
    zport_unlock(&set.lock);
    return s;
}

void scope_put_in_force(struct scope *s)
{
    zport_lock(&set.lock);
    if (s->is_sealed) {
        seal(s->marks);
    } else {
        s->is_bare = true;
        s->before = set.bare;
        s->before_number = set.bare_number;
        set.bare = s->marks;
        set.bare_number = s->number;
    }
    apply();
    zport_unlock(&set.lock);
}

/* Takes the bare limit back that s has set: from its place, or, if another has replaced it, from what
 * would come back after that. set.lock is held. */
static void unset_bare(struct scope *s)
{
    if (!s->is_bare)
        return;
    if (set.bare_number == s->number) {
        set.bare = s->before;
        set.bare_number = s->before_number;
    }
    for (struct scope *other = set.all; other; other = other->next) {
        if (other->is_bare && other->before_number == s->number) {
            other->before = s->before;
            other->before_number = s->before_number;
        }
    }
    s->is_bare = false;
}

void scope_cancel(struct scope *s)
{
    zport_lock(&set.lock);
    unset_bare(s); /* a sealed one has its marks in set.sealed, for good */
    apply();
    zport_unlock(&set.lock);
}

void scope_enter(struct scope *s, size_t room, size_t reserve)
{
    zaccount_enter(&python_account, &s->measure);
    zport_lock(&set.lock);
    s->start = zaccount_used(&python_account);
    s->is_entered = true;
    if (room != SIZE_MAX) {
        s->marks.limit = plus(s->start, room);
        s->marks.hard = plus(s->marks.limit, reserve);
    }
    if (!s->is_sealed) {
        unset_bare(s);
        s->next_entered = set.entered;
        set.entered = s;
    }
    apply();
    zport_unlock(&set.lock);
}

void scope_leave(struct scope *s)
{
    zport_lock(&set.lock);
    struct scope **at = &set.entered;
    while (*at && *at != s)
        at = &(*at)->next_entered;
    if (*at)
        *at = s->next_entered;
    const bool was_entered = s->is_entered;
    s->is_entered = false;
    apply();
    zport_unlock(&set.lock);
    if (was_entered)
        zaccount_leave(&python_account, &s->measure);
}

size_t scope_peak(struct scope *s)
{
    return s->is_entered ? zaccount_scope_peak(&python_account, &s->measure) : s->measure.peak;
}

const char *scope_state(const struct scope *s)
{
    zport_lock(&set.lock);
    const char *state = s->is_sealed                                    ? "sealed"
                        : s->is_entered                                 ? "entered"
                        : s->is_bare && set.bare_number == s->number ? "in force"
                        : s->is_bare                                    ? "replaced"
                                                                        : "ended";
    zport_unlock(&set.lock);
    return state;
}

void scope_free(struct scope *s)
{
    if (s->is_entered) /* a with statement that was never left, in a generator that was dropped */
        scope_leave(s);
    zport_lock(&set.lock);
    struct scope **at = &set.all;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    zport_unlock(&set.lock);
    free(s);
}

/* ---- once --------------------------------------------------------------------------------------------- */

static void before_fork(void)
{
    zport_lock(&set.lock);
}

static void after_fork(void)
{
    zport_unlock(&set.lock);
}

void scopes_init(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&done))
        zport_atfork(before_fork, after_fork, after_fork);
}
