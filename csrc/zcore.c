/* zcore.c - the register of accounts, and how the copies of the core in a process find it.
 *
 * Invariants:
 *  - The register belongs to one copy, the owner: the first whose constructor ran. It is never
 *    unloaded once another copy knows it.
 *  - The register's lock and the marks' are held over fork(), so a child finds them free. They are
 *    never taken while charging. */
#include "zcore.h"
#include "zmalloc.h"

/* All mutable state of this file. The family's account is in the list from the start, so it needs no
 * constructor. */
static zaccount c_account = ZACCOUNT_STATIC("C");
/* Who comes to zaccount_alloc() without an account is a Lua state. */
static zaccount default_account = ZACCOUNT_STATIC("Lua");
static struct {
    zport_mutex lock;
    zaccount *first;
} registry = {ZPORT_MUTEX_INIT, &c_account};

/* How other copies find this one. A pointer, so that no reference of ours goes through a symbol that
 * another object could take over. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern struct zcore *const zmalloc_core_v1;
struct zcore *const zmalloc_core_v1 = &zcore_self;

struct zcore *zcore_owner(void)
{
    struct zcore *owner = atomic_load_explicit(&zcore_self.owner, memory_order_acquire);
    return owner ? owner : &zcore_self;
}

/* ---- the register, run by its owner -------------------------------------------------------- */

static zaccount **link_of(zaccount *a)
{
    return a->core->link(a);
}

void zcore_enlist(zaccount *a)
{
    zport_lock(&registry.lock);
    *link_of(a) = registry.first;
    registry.first = a;
    zport_unlock(&registry.lock);
}

void zcore_delist(zaccount *a)
{
    zport_lock(&registry.lock);
    zaccount **at = &registry.first;
    while (*at && *at != a)
        at = link_of(*at);
    if (*at)
        *at = *link_of(a);
    zport_unlock(&registry.lock);
}

size_t zcore_total(void)
{
    size_t sum = 0;
    zport_lock(&registry.lock);
    for (zaccount *a = registry.first; a; a = *link_of(a))
        if (!zaccount_parent(a))
            sum += zaccount_used(a);
    zport_unlock(&registry.lock);
    return sum;
}

size_t zcore_below(const zaccount *parent)
{
    size_t sum = 0;
    zport_lock(&registry.lock);
    for (zaccount *a = registry.first; a; a = *link_of(a))
        if (zaccount_parent(a) == parent)
            sum += zaccount_used(a);
    zport_unlock(&registry.lock);
    return sum;
}

size_t zaccount_below(const zaccount *a)
{
    const struct zcore *owner = zcore_owner();
    return owner->below(a);
}

zaccount *zcore_c_account(void)
{
    return &c_account;
}

/* In the list once it is asked for, so that a process without it has no empty account. */
zaccount *zcore_default_account(void)
{
    static _Atomic bool is_listed;
    if (zport_likely(atomic_load_explicit(&is_listed, memory_order_acquire)))
        return &default_account;
    zport_lock(&registry.lock);
    if (!atomic_load(&is_listed)) {
        default_account.next = registry.first;
        registry.first = &default_account;
        atomic_store(&is_listed, true);
    }
    zport_unlock(&registry.lock);
    return &default_account;
}

/* ---- whose allocator is it? ---------------------------------------------------------------- */

zaccount *zcore_account_of(zcore_alloc *f, void *ud)
{
    for (struct zcore *core = zcore_owner(); core; core = atomic_load(&core->next)) {
        if (f == core->alloc || f == atomic_load(&core->front))
            return ud ? ud : zaccount_default();
        if (f && f == atomic_load(&core->wrapper))
            return *(zaccount **)ud;
    }
    return NULL;
}

void zaccount_enlist(zaccount *a)
{
    zcore_owner()->enlist(a);
}

size_t zmalloc_total(void)
{
    return zcore_owner()->total();
}

/* ---- attaching --------------------------------------------------------------------------- */

#if defined(ZPORT_CONSTRUCTOR)

static bool is_older(void *address, void *ud)
{
    struct zcore *core = *(struct zcore *const *)address, **owner = ud;
    if (core == &zcore_self || core->magic != ZCORE_MAGIC || core->size < ZCORE_LEAST)
        return false;
    *owner = atomic_load_explicit(&core->owner, memory_order_acquire);
    return *owner != NULL; /* NULL: mapped, but its constructor has not run: it will find us */
}

static void before_fork(void)
{
    zport_lock(&registry.lock);
    zaccount_lock_marks();
}

static void after_fork(void)
{
    zaccount_unlock_marks();
    zport_unlock(&registry.lock);
}

ZPORT_CONSTRUCTOR(attach)
{
    struct zcore *owner = NULL;
    zcore_self.version = ZMALLOC_VERSION;
    zport_each_symbol(ZCORE_SYMBOL, is_older, &owner);
    if (owner) {
        zport_pin(owner);
        zport_pin(&zcore_self);
        struct zcore *next = atomic_load(&owner->next);
        do
            atomic_store(&zcore_self.next, next);
        while (!atomic_compare_exchange_weak(&owner->next, &next, &zcore_self));
    }
    atomic_store_explicit(&zcore_self.owner, owner ? owner : &zcore_self, memory_order_release);
    zport_atfork(before_fork, after_fork, after_fork);
}

#endif
