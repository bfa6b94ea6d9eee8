/* zpace.c - zmalloc_lua_pace(): the collector runs before the cap is reached, not after.
 *
 * Lua sets the beginning of a cycle by what was live at the end of the last one, and knows no cap. So a
 * userdata that nothing refers to, the sentinel, has its finalizer called in each cycle; that looks at the
 * room there is below the caps, and sets the collector's pause and step multiplier so that the next cycle
 * begins, and ends, within it. The finalizer then puts the sentinel back.
 *
 * What is remembered are numbers in a table of the registry, under a key that all copies of this library
 * in the process agree on: a script that gets at them by the debug library can spoil the pace, no more.
 *
 * Invariants:
 *  - Never tighter than a cycle for each LEAST of what is live: near enough to the cap the error must
 *    come, instead of a program that only collects.
 *  - The state's own parameters are those that were set by others since the last look; they are in force
 *    whenever the caps leave room for them. A stopped collector is not started (Lua 5.1 does not tell).
 *    Neither is the mode changed. */
#include "zpace.h"
#include "zcompat.h"
#include "zcore.h"
#include "zmalloc_lua.h"

#include <math.h>


/* How far a heap grows while a cycle runs, in shares of it, is GROWTH / step multiplier: 1 means that it
 * doubles. From the cost of marking and sweeping in each version's lgc.c, rounded up. */
#if LUA_VERSION_NUM == 501
#define GROWTH 150.0
#define MOST_MULTIPLIER 1000000
#elif LUA_VERSION_NUM <= 503
#define GROWTH 300.0
#define MOST_MULTIPLIER (sizeof(void *) >= 8 ? 1000000000 : 1000) /* its product with sizes must fit */
#elif LUA_VERSION_NUM == 504
#define GROWTH 2.0
#define MOST_MULTIPLIER 1000 /* kept in a byte, as a quarter of it */
#else
#define GROWTH 100.0
#define MOST_MULTIPLIER 300000
#endif

/* Shares of the heap, and of the room below the cap. */
#if ZCOMPAT_LUAJIT
#define LEAST 0.15      /* a cycle is not begun for less: its programs are fast, its collector is not */
#else
#define LEAST 0.05
#endif
#define OF_ROOM 0.875   /* it begins when so much of the room is taken */
#define NO_CAP 1e9      /* the room where there is no cap */
#define LITTLE_ROOM 0.0625

/* What is kept, as the numbers 1.. of the table. Bytes are those that the collector counts. */
struct pace {
    double user_pause, user_multiplier; /* the state's own */
    double our_pause, our_multiplier;   /* as we last left them; 0: never */
    double next;   /* where the next cycle begins; not above the count: it has begun; 0: not known */
    double before; /* LuaJIT: where it would begin but for a cap that is short-lived; 0: there */
    double full;   /* what was live after the last full collection of ours */
    double user_minor, our_minor; /* the generational mode's minor multiplier, as pause and multiplier */
    double incremental;           /* Lua 5.4: as the mode was last seen */
    double stepping;              /* Lua 5.2: a step of ours is under way, or was ended by an error */
};
/* Behind them: the sentinel's number, and its metatable. */
enum { FIELDS = sizeof(struct pace) / sizeof(double), SERIAL, METATABLE };

static const void *key(void)
{
    return &zcore_owner()->version;
}

/* Pushes the table; nil and false if there is none. */
static int push_table(lua_State *L)
{
    zcompat_get(L, key());
    return lua_istable(L, -1);
}

static void load(lua_State *L, struct pace *p)
{
    double *field = (double *)p;
    for (int i = 0; i < FIELDS; i++) {
        lua_rawgeti(L, -1, i + 1);
        field[i] = (double)lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
}

/* All fields are there, so this takes no memory. */
static void store(lua_State *L, const struct pace *p)
{
    const double *field = (const double *)p;
    for (int i = 0; i < FIELDS; i++) {
        lua_pushnumber(L, (lua_Number)field[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

/* ---- the plan -------------------------------------------------------------------------------------- */

/* The least room below a cap of the account or its parents, as a share of what is used. */
static double room_of(const zaccount *a)
{
    double least = NO_CAP;
    for (; a; a = zaccount_parent(a)) {
        struct zaccount_figures f;
        zaccount_stats(a, &f);
        if (f.limit == ZACCOUNT_UNLIMITED)
            continue;
        const double room = ((double)f.limit - (double)f.used) / (double)(f.used ? f.used : 1);
        if (room < least)
            least = room;
    }
    return least;
}

static double at_least(double value, double least)
{
    return value > least ? value : least;
}

static double multiplier_for(double growth, double user)
{
    const double wanted = GROWTH / at_least(growth, GROWTH / MOST_MULTIPLIER);
    return at_least(wanted, user);
}

/* Lua 5.2 and 5.3 call finalizers in the middle of a cycle, when the count tells garbage and all, unless the
 * cycle is done in one step. On 5.4 it is cheaper so. */
static double whole_cycle(double multiplier)
{
    return LUA_VERSION_NUM >= 502 && LUA_VERSION_NUM <= 504 ? MOST_MULTIPLIER : multiplier;
}

/* Pause and multiplier for a heap with this room to grow: the user's if they leave a cycle the time to
 * end, else such that it begins when OF_ROOM is taken and ends in half of what is left then. */
static void plan(double room, const struct pace *p, double *pause, double *multiplier)
{
    const double wait = p->user_pause / 100 - 1;
    const double growth = p->user_multiplier > 0 ? GROWTH / p->user_multiplier : 0;
    *pause = p->user_pause;
    *multiplier = p->user_multiplier;
    if ((1 + wait) * (1 + growth) <= 1 + room || p->user_multiplier <= 0)
        return;
    double ours = wait;
    if (wait > LEAST) {
        ours = at_least(room * OF_ROOM, LEAST);
        ours = ours < wait ? ours : wait;
        *pause = 100 * (1 + ours);
    }
    const double left = at_least(room - ours, room * (1 - OF_ROOM));
    *multiplier = multiplier_for(left / (1 + ours) / 2, p->user_multiplier);
    if (ours < wait)
        *multiplier = whole_cycle(*multiplier);
}

/* Lua 5.4 keeps it in quarters, 5.5 in sixteenths of a power of two: not to be rounded below LEAST, nor to
 * far less than was meant. */
static void set_pause(lua_State *L, struct pace *p, double pause)
{
    double least = 0;
    if (pause >= 100 * (1 + LEAST))
        least = 100 + at_least(0.7 * (pause - 100), 100 * LEAST);
    for (int more = 0; more < 8; more++) {
        zcompat_pause(L, (int)pause + more);
        p->our_pause = zcompat_pause(L, -1);
        if (p->our_pause >= least)
            break;
    }
}

static void set_multiplier(lua_State *L, struct pace *p, double multiplier)
{
    zcompat_step_multiplier(L, (int)multiplier);
    p->our_multiplier = zcompat_step_multiplier(L, -1);
}

/* ---- the generational mode --------------------------------------------------------------------- */

/* A minor collection is cheap and finds what has just become garbage, so it may come more often; then what is
 * old can be looked at in time. Half of the room, in percent of the heap. */
static double minor_for(double room, double user)
{
    enum { LEAST_MINOR = 2 };
    const double ours = room * 50;
    return ours >= user ? user : at_least(ours, LEAST_MINOR);
}

#if LUA_VERSION_NUM == 504
/* Only the call that switches to a mode sets its parameters, and tells what the mode was. So it is made for
 * the mode that was last seen, where it switches nothing, and undone if that was wrong: a full collection.
 * The stand-alone lua is generational. What the user's multiplier is, nothing tells: taken to be the default. */
static void set_minor(lua_State *L, struct pace *p, int minor)
{
    const int seen = p->incremental != 0 ? lua_gc(L, LUA_GCINC, 0, 0, 0) : lua_gc(L, LUA_GCGEN, minor, 0);
    p->incremental = seen == LUA_GCINC;
    if (seen == LUA_GCINC)
        lua_gc(L, LUA_GCINC, 0, 0, 0);
    else
        lua_gc(L, LUA_GCGEN, minor, 0);
}

static void apply_minor(lua_State *L, struct pace *p, double room)
{
    const double minor = (int)minor_for(room, 20);
    if (p->our_minor == 0)
        p->our_minor = 20;
    if (minor != p->our_minor)
        set_minor(L, p, (int)minor);
    p->our_minor = minor;
}
#elif LUA_VERSION_NUM >= 505
static void apply_minor(lua_State *L, struct pace *p, double room)
{
    const double now = lua_gc(L, LUA_GCPARAM, LUA_GCPMINORMUL, -1);
    if (now != p->our_minor)
        p->user_minor = now;
    lua_gc(L, LUA_GCPARAM, LUA_GCPMINORMUL, (int)minor_for(room, p->user_minor));
    p->our_minor = lua_gc(L, LUA_GCPARAM, LUA_GCPMINORMUL, -1);
}
#else
static void apply_minor(lua_State *L, struct pace *p, double room)
{
    (void)L, (void)p, (void)room, (void)minor_for;
}
#endif

/* Sets the parameters for this room; returns the pause that was in force. */
static double apply(lua_State *L, struct pace *p, double room)
{
    const double pause_now = zcompat_pause(L, -1), multiplier_now = zcompat_step_multiplier(L, -1);
    if (pause_now != p->our_pause)
        p->user_pause = pause_now;
    if (multiplier_now != p->our_multiplier)
        p->user_multiplier = multiplier_now;
    double pause, multiplier;
    plan(room, p, &pause, &multiplier);
    set_pause(L, p, pause);
    set_multiplier(L, p, multiplier);
    apply_minor(L, p, room);
    return pause_now;
}

/* ---- at the end of a cycle ------------------------------------------------------------------------- */

/* In the generational mode a minor collection, whose end we saw, leaves garbage that is old. */
static void collect_old(lua_State *L, struct pace *p, const zaccount *a, double *room)
{
    double live = zcompat_count(L);
    if (p->full == 0 || live < p->full)
        p->full = live;
    if (*room > LITTLE_ROOM || live < p->full * (1 + LEAST))
        return;
    for (int i = 0; i < 2 && *room <= LITTLE_ROOM; i++) { /* what has a finalizer goes with the second */
        lua_gc(L, LUA_GCCOLLECT, 0);
        *room = room_of(a);
    }
    p->full = zcompat_count(L);
}

#if LUA_VERSION_NUM == 504
/* The pause is kept in quarters, coarse where it matters: what the rounding took from the room is put back. */
static void refine_next(lua_State *L, struct pace *p, double live, double room)
{
    const double late = live * (1 + room * OF_ROOM) - p->next;
    if (p->incremental == 0 || p->our_pause >= p->user_pause || late < 1024)
        return;
    lua_gc(L, LUA_GCSTEP, -(int)(late / 1024));
    p->next += late;
}
#else
static void refine_next(lua_State *L, struct pace *p, double live, double room)
{
    (void)L, (void)p, (void)live, (void)room;
}
#endif

#if LUA_VERSION_NUM == 502
/* Lua 5.2 has set the beginning of the next cycle already, by an estimate that can be far above what is live.
 * A step with a negative size marks the roots and leaves the rest of the cycle for then. */
static void set_next(lua_State *L, struct pace *p, double live)
{
    const double wait = live * (p->our_pause / 100 - 1);
    if (p->our_pause < p->user_pause)
        lua_gc(L, LUA_GCSTEP, -(int)(wait / 1024));
    p->stepping = 0;
}
#elif LUA_VERSION_NUM >= 504
/* It is set already by the pause that was in force, and too late: the cycle begins now. */
static void set_next(lua_State *L, struct pace *p, double live)
{
    if (zcompat_is_collecting(L)) {
        zcompat_start_cycle(L);
        p->next = live;
    }
}
#else
static void set_next(lua_State *L, struct pace *p, double live)
{
    (void)L, (void)p, (void)live; /* the pause counts when the finalizers are done */
}
#endif

static void end_of_cycle(lua_State *L)
{
    const zaccount *a = zmalloc_lua_account(L);
    struct pace p;
    if (!a || !push_table(L)) {
        lua_pop(L, a != NULL);
        return;
    }
    load(L, &p);
    double room = room_of(a);
    if (LUA_VERSION_NUM >= 504)
        collect_old(L, &p, a, &room);
    const double live = zcompat_count(L), was = apply(L, &p, room);
    const bool is_set = LUA_VERSION_NUM >= 504;
    p.before = 0;
    p.next = live * (is_set ? was : p.our_pause) / 100;
    const bool again = p.stepping != 0;
    p.stepping = LUA_VERSION_NUM == 502 && !again;
    store(L, &p); /* first, for a step can run finalizers, this one too */
    if (p.stepping != 0 || (is_set && was > p.our_pause && p.next > live * (1 + room)))
        set_next(L, &p, live);
    else
        refine_next(L, &p, live, room);
    store(L, &p);
    lua_pop(L, 1);
}

#if LUA_VERSION_NUM >= 504
/* Bytes below the cap. With less a stack that has to grow has the collector run, that finds the new sentinel,
 * whose finalizer comes here, and so on without end. */
#define LEAST_ROOM 16384.0

/* From 5.4.4 on lua_gc() does nothing in a finalizer, so the work is left for the next instruction of this
 * thread. A thread that has a hook keeps it, and has its cycles as they come; and so has one whose stack
 * cannot grow: a hook for which there is no room would be an error of the function that it interrupts. */
static void on_instruction(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    end_of_cycle(L);
}

/* Without a cap there is nothing to do but to know that the beginning of the next cycle is not known. */
static void forget_next(lua_State *L)
{
    struct pace p;
    if (push_table(L)) {
        load(L, &p);
        p.next = 0;
        store(L, &p);
    }
    lua_pop(L, 1);
}

static void at_end_of_cycle(lua_State *L)
{
    enum { REGISTERS = 40 }; /* of the function that was interrupted, as far as they are above us */
    const zaccount *a = zmalloc_lua_account(L);
    const double room = room_of(a);
    if (room >= NO_CAP)
        forget_next(L);
    else if (!lua_gethook(L) && room * (double)zaccount_used(a) >= LEAST_ROOM &&
             lua_checkstack(L, REGISTERS + LUA_MINSTACK))
        lua_sethook(L, on_instruction, LUA_MASKCOUNT, 1);
}
#else
static void at_end_of_cycle(lua_State *L)
{
    end_of_cycle(L);
}
#endif

/* ---- the sentinel ---------------------------------------------------------------------------------- */

/* The number of the sentinel that there is; negative: it is not to be relied on; 0: none. */
static double get_serial(lua_State *L)
{
    double serial = 0;
    if (push_table(L)) {
        lua_rawgeti(L, -1, SERIAL);
        serial = (double)lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return serial;
}

static void set_serial(lua_State *L, double serial)
{
    if (push_table(L)) {
        lua_pushnumber(L, (lua_Number)serial);
        lua_rawseti(L, -2, SERIAL);
    }
    lua_pop(L, 1);
}

static int new_sentinel(lua_State *L)
{
    const double serial = fabs(get_serial(L)) + 1;
    *(double *)zcompat_new_userdata(L, sizeof serial) = serial;
    if (push_table(L)) {
        lua_rawgeti(L, -1, METATABLE);
        lua_remove(L, -2);
    }
    if (lua_istable(L, -1))
        lua_setmetatable(L, -2);
    set_serial(L, serial);
    return 0;
}

/* No memory for a new one. From 5.3 on the old one serves again when its metatable is set again; but it
 * grows old by that, and the generational mode looks at what is old seldom. */
static void keep_sentinel(lua_State *L, double serial)
{
    set_serial(L, -serial);
#if LUA_VERSION_NUM >= 503
    if (lua_getmetatable(L, 1))
        lua_setmetatable(L, 1);
#endif
}

/* Its __gc. The debug library can call it with anything. */
static int on_cycle(lua_State *L)
{
    lua_settop(L, 1);
    if (lua_type(L, 1) != LUA_TUSERDATA || zcompat_length(L, 1) != sizeof(double))
        return 0;
    const double serial = *(const double *)lua_touserdata(L, 1);
    if (!zmalloc_lua_account(L) || serial != fabs(get_serial(L)))
        return 0; /* LuaJIT is closing the state; or there is a newer one */
    if (zcompat_call_c(L, new_sentinel, NULL) != LUA_OK)
        keep_sentinel(L, serial);
    at_end_of_cycle(L);
    return 0;
}

static void new_table(lua_State *L)
{
    struct pace p = {0};
    lua_createtable(L, METATABLE, 0);
    p.next = zcompat_count(L) * zcompat_pause(L, -1) / 100; /* or earlier: at a part of it, at the start */
    store(L, &p);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, on_cycle);
    lua_setfield(L, -2, "__gc");
    lua_rawseti(L, -2, METATABLE);
    zcompat_set(L, key());
}

static int prepare(lua_State *L)
{
    if (!push_table(L))
        new_table(L);
    new_sentinel(L);
    return 0;
}

int zpace_prepare(lua_State *L)
{
    if (!lua_checkstack(L, 4))
        return -1;
    return get_serial(L) > 0 || zcompat_call_c(L, prepare, NULL) == LUA_OK ? 0 : -1;
}

/* ---- when a cap has changed ------------------------------------------------------------------------ */

#if ZCOMPAT_LUAJIT
/* Begins the next cycle at `where`: LuaJIT's restart has an argument for that, in terms of the pause. */
static void begin_at(lua_State *L, struct pace *p, double where)
{
    const double hundredth = at_least(zcompat_count(L) / 100, 1);
    zcompat_pause(L, (int)(where / hundredth));
    lua_gc(L, LUA_GCRESTART, -1);
    zcompat_pause(L, (int)p->our_pause);
    p->next = where;
}

static void move_next(lua_State *L, struct pace *p, double used, double room, int lasting)
{
    const double where = used * (1 + at_least(room, 0) * OF_ROOM);
    if (!zcompat_is_collecting(L))
        return;
    if (p->next > where) {
        p->before = lasting ? 0 : at_least(p->before, p->next);
        begin_at(L, p, where);
    } else if (p->before > p->next) {
        begin_at(L, p, p->before < where ? p->before : where);
    }
}
#else
/* Other Lua's collectors can be told to begin, not when. Lua 5.1 has no emergency collections, so the
 * cycle begins now, and is paid for as memory is taken: done when OF_ROOM is. For the others that is worth
 * it only for a cap that stays. */
static void move_next(lua_State *L, struct pace *p, double used, double room, int lasting)
{
    if (p->next <= used * (1 + room * OF_ROOM) || !zcompat_is_collecting(L))
        return;
    if (LUA_VERSION_NUM > 501 && !lasting)
        return;
    if (LUA_VERSION_NUM == 501)
        set_multiplier(L, p, multiplier_for(room * OF_ROOM, p->user_multiplier));
    zcompat_start_cycle(L);
    p->next = used;
}
#endif

void zpace_adjust(lua_State *L, int lasting)
{
    const zaccount *a = zmalloc_lua_account(L);
    const double used = zcompat_count(L);
    if (!a || used < 0)
        return;
    if (push_table(L)) {
        struct pace p;
        load(L, &p);
        const double room = room_of(a);
        const double pause = apply(L, &p, room);
        if (p.next == 0)
            p.next = used * pause / 100; /* or before */
        if (p.next > used)
            move_next(L, &p, used, room, lasting);
        store(L, &p);
    }
    lua_pop(L, 1);
}

static int pace(lua_State *L)
{
    if (get_serial(L) <= 0)
        prepare(L);
    zpace_adjust(L, 1);
    return 0;
}

int zmalloc_lua_pace(lua_State *L)
{
    if (!zmalloc_lua_account(L))
        return -1;
    return zcompat_call_c(L, pace, NULL) == LUA_OK ? 0 : -1;
}
