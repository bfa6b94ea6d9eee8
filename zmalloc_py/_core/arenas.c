/* arenas.c - the list of arenas, and reading their pools.
 *
 * Invariant: `list.lock` is held for a few instructions, or for one walk; an arena is taken out under it before it is
 * given back, so a walk reads none that is gone. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arenas.h"

#include "zport.h"

#include <stdint.h>
#include <stdlib.h>

/* ---- the list ---------------------------------------------------------------------------------- */

static struct {
    zport_mutex lock;
    const char **arena;
    size_t count, room;
} list = {.lock = ZPORT_MUTEX_INIT};

/* list.lock is held. */
static bool make_room(void)
{
    if (list.count < list.room)
        return true;
    const size_t room = list.room ? 2 * list.room : 1024;
    const char **more = realloc(list.arena, room * sizeof *more);
    if (!more)
        return false;
    list.arena = more;
    list.room = room;
    return true;
}

bool arenas_add(void *arena)
{
    zport_lock(&list.lock);
    const bool done = make_room();
    if (done)
        list.arena[list.count++] = arena;
    zport_unlock(&list.lock);
    return done;
}

/* The last that came is the first to go, mostly. */
bool arenas_remove(void *arena)
{
    bool done = false;
    zport_lock(&list.lock);
    for (size_t i = list.count; i-- > 0 && !done;) {
        done = list.arena[i] == arena;
        if (done)
            list.arena[i] = list.arena[--list.count];
    }
    zport_unlock(&list.lock);
    return done;
}

size_t arenas_count(void)
{
    zport_lock(&list.lock);
    const size_t count = list.count;
    zport_unlock(&list.lock);
    return count;
}

void arenas_forked(void)
{
    list.lock = (zport_mutex)ZPORT_MUTEX_INIT;
}

/* ---- pools --------------------------------------------------------------------------------------- */

/* A pool's first bytes. */
struct pool {
    unsigned count; /* blocks in use */
    void *free, *next, *previous;
    unsigned arena, class, next_offset, last_offset;
};

enum { POOL_SIZE = 16 << 10, POOL_HEADER = 48, ALIGNMENT = 16, CLASSES = 32 };

static size_t block_size(const struct pool *p)
{
    return ((size_t)p->class + 1) * ALIGNMENT;
}

/* What is zero has never been used, or is empty: its class is that of its last use. */
static bool is_sound(const struct pool *p)
{
    return p->class < CLASSES && p->last_offset == POOL_SIZE - block_size(p) &&
           p->count * block_size(p) <= POOL_SIZE - POOL_HEADER;
}

static size_t room_in(const struct pool *p)
{
    if (p->count == 0)
        return POOL_SIZE - POOL_HEADER;
    return is_sound(p) ? POOL_SIZE - POOL_HEADER - p->count * block_size(p) : 0;
}

static const char *first_pool(const char *arena)
{
    return (const char *)(((uintptr_t)arena + POOL_SIZE - 1) & ~(uintptr_t)(POOL_SIZE - 1));
}

size_t arenas_room(void)
{
    size_t room = 0;
    zport_lock(&list.lock);
    for (size_t i = 0; i < list.count; i++) {
        const char *const end = list.arena[i] + ARENA_SIZE;
        for (const char *at = first_pool(list.arena[i]); at + POOL_SIZE <= end; at += POOL_SIZE)
            room += room_in((const struct pool *)at);
    }
    zport_unlock(&list.lock);
    return room;
}

/* ---- the check ------------------------------------------------------------------------------------- */

static const struct pool *pool_of(const void *block)
{
    return (const struct pool *)((uintptr_t)block & ~(uintptr_t)(POOL_SIZE - 1));
}

/* Of blocks that follow on each other in one pool each is counted there. */
static bool is_counted(size_t n)
{
    enum { BLOCKS = 8 };
    void *block[BLOCKS];
    bool is_right = true, was_seen = false;
    unsigned before = 0;
    for (int i = 0; i < BLOCKS; i++) {
        block[i] = PyObject_Malloc(n);
        const struct pool *p = pool_of(block[i]), *last = i ? pool_of(block[i - 1]) : NULL;
        is_right = is_right && block[i] && is_sound(p) && p->count > 0;
        if (is_right && p == last) {
            was_seen = true;
            is_right = p->count == before + 1;
        }
        before = is_right ? p->count : 0;
    }
    for (int i = 0; i < BLOCKS; i++)
        PyObject_Free(block[i]);
    return is_right && was_seen;
}

bool arenas_are_readable(void)
{
    return PY_VERSION_HEX < 0x030e0000 && sizeof(void *) == 8 && is_counted(40) && is_counted(400);
}
