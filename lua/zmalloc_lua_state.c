/* zmalloc_lua_state.c - new states, and live ones that are adopted by wrapping their allocator.
 *
 * Invariants:
 *  - A wrapper passes each request on to the allocator that it found, with the sizes that Lua gave. So a
 *    state may have any allocator, and may be adopted at any time.
 *  - A wrapper and an account of its own end with the free of the state's main block, the last thing that
 *    lua_close() does; on LuaJIT when the allocator that was found is put back.
 *  - Nothing of ours is in the state but, on LuaJIT, a userdata that does the latter. */
#include "zmalloc_lua.h"
#include "zcore.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h> /* LuaJIT is known by it */
#include <stdlib.h>
#include <string.h>

#if defined(LUA_JITLIBNAME)
#define IS_LUAJIT 1
#else
#define IS_LUAJIT 0
#endif

/* Its address is the allocator's ud. The account comes first: see zcore.front. */
struct wrapper {
    zaccount *account;
    lua_Alloc f;
    void *ud;
    const void *main; /* the main thread, inside of the main block; NULL: not known, as Lua 5.1 has it */
    bool owns_account;
    struct wrapper *next;
};

/* All wrappers, so that what a process still has at its end is not lost, only not freed. */
static struct {
    zport_mutex lock;
    struct wrapper *first;
} wrappers = {ZPORT_MUTEX_INIT, NULL};

/* ---- the wrapper ----------------------------------------------------------------------------- */

static void enlist(struct wrapper *w)
{
    zport_lock(&wrappers.lock);
    w->next = wrappers.first;
    wrappers.first = w;
    zport_unlock(&wrappers.lock);
}

/* The state is gone, or counts no more. `held` bytes are charged for it. */
static void end(struct wrapper *w, size_t held)
{
    zport_lock(&wrappers.lock);
    struct wrapper **at = &wrappers.first;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    zport_unlock(&wrappers.lock);
    const size_t used = zaccount_used(w->account);
    if (w->owns_account || held > used) /* more than is known: blocks from before have been given back */
        held = used;
    zaccount_uncharge(w->account, held);
    if (w->owns_account)
        zaccount_free(w->account);
    free(w);
}

static bool is_main_block(const struct wrapper *w, const void *ptr, size_t size)
{
    if (w->main)
        return (uintptr_t)w->main - (uintptr_t)ptr < size;
    return w->owns_account && zaccount_used(w->account) == size;
}

static ZPORT_OUTLINE void *alloc_for_any(struct wrapper *w, void *ptr, size_t osize, size_t nsize)
{
    const bool is_last = ptr && nsize == 0 && zport_unlikely(is_main_block(w, ptr, osize));
    void *p = w->account->core->alloc_over(w->account, w->f, w->ud, ptr, osize, nsize);
    if (is_last)
        end(w, 0);
    return p;
}

/* The same for the accounts that adoption makes, where it is nothing out of the ordinary. */
static ZPORT_OUTLINE void *create(struct wrapper *w, void *ptr, size_t kind, size_t n)
{
    zaccount *a = w->account;
    if (zport_unlikely(!zaccount_take_single(a, n)))
        return alloc_for_any(w, ptr, kind, n);
    void *p = w->f(w->ud, ptr, kind, n);
    if (zport_likely(p != NULL))
        zport_bump(&a->kinds[kind % ZACCOUNT_KINDS]);
    else
        zaccount_give_back(a, n);
    return p;
}

static ZPORT_OUTLINE void *release(struct wrapper *w, void *ptr, size_t n, size_t nothing)
{
    zaccount *a = w->account;
    const size_t before = ZACCOUNT_HINT(a->used);
    if (zport_unlikely(n > before || !w->main || (uintptr_t)w->main - (uintptr_t)ptr < n))
        return alloc_for_any(w, ptr, n, 0);
    zport_bump(&a->frees);
    atomic_store_explicit(&a->used, before - n, memory_order_relaxed);
    zaccount_note_drop(a, before, before - n);
    return w->f(w->ud, ptr, n, nothing);
}

static ZPORT_OUTLINE void *enlarge(struct wrapper *w, void *ptr, size_t osize, size_t nsize)
{
    if (zport_unlikely(!zaccount_take_single(w->account, nsize - osize)))
        return alloc_for_any(w, ptr, osize, nsize);
    void *p = w->f(w->ud, ptr, osize, nsize);
    if (zport_unlikely(!p))
        zaccount_give_back(w->account, nsize - osize);
    return p;
}

static void *wrapped_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct wrapper *w = ud;
    if (zport_likely(w->account->quick == &zaccount_is_single)) {
        if (!ptr && nsize)
            return create(w, ptr, osize, nsize);
        if (ptr && !nsize)
            return release(w, ptr, osize, nsize);
        if (nsize > osize)
            return enlarge(w, ptr, osize, nsize);
    }
    return alloc_for_any(w, ptr, osize, nsize);
}

#if defined(ZPORT_CONSTRUCTOR)
ZPORT_CONSTRUCTOR(announce)
{
    atomic_store(&zcore_self.wrapper, wrapped_alloc);
}
#endif

/* ---- what a state holds ------------------------------------------------------------------------ */

/* false inside a finalizer, from Lua 5.4.4 on. */
static bool tell_count(lua_State *L, size_t *bytes)
{
    const int kib = lua_gc(L, LUA_GCCOUNT, 0), rest = lua_gc(L, LUA_GCCOUNTB, 0);
    if (kib < 0 || rest < 0)
        return false;
    *bytes = ((size_t)kib << 10) + (size_t)rest;
    return true;
}

#if LUA_VERSION_NUM >= 503

/* What lauxlib.c keeps of the string buffer of a running function. Its bytes are not in the count. */
struct box {
    void *bytes;
    size_t size;
};

/* The size of the box at the top of the stack, or 0; the metatable of boxes is at index 1. Pops it. */
static size_t pop_box(lua_State *L)
{
    size_t size = 0;
    if (lua_type(L, -1) == LUA_TUSERDATA && lua_rawlen(L, -1) == sizeof(struct box) &&
        lua_getmetatable(L, -1)) {
        if (lua_rawequal(L, -1, 1))
            size = ((const struct box *)lua_touserdata(L, -2))->size;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return size;
}

/* The boxes of all functions that are running in a thread. */
static size_t sum_of_thread(lua_State *L, lua_State *thread)
{
    size_t sum = 0;
    lua_Debug level;
    if (!lua_checkstack(thread, 1))
        return 0;
    for (int i = 0; lua_getstack(thread, i, &level); i++)
        for (int j = 1; lua_getlocal(thread, &level, j); j++) {
            lua_xmove(thread, L, 1);
            sum += pop_box(L);
        }
    return sum;
}

/* The thread that another one has resumed and waits for: what its innermost function, coroutine.resume() or one
 * of coroutine.wrap(), has as its argument or upvalue. NULL: none, or a host's own way of resuming. */
static lua_State *resumed_by(lua_State *L, lua_State *thread)
{
    lua_Debug level;
    if (!lua_checkstack(thread, 1) || !lua_getstack(thread, 0, &level))
        return NULL;
    lua_getinfo(thread, "f", &level);
    lua_xmove(thread, L, 1);
    if (!lua_getupvalue(L, -1, 1))
        lua_pushnil(L);
    lua_State *inner = lua_tothread(L, -1);
    lua_pop(L, 2);
    if (inner || !lua_getlocal(thread, &level, 1))
        return inner;
    inner = lua_tothread(thread, -1);
    lua_pop(thread, 1);
    return inner;
}

enum { MOST_NESTED = 200 }; /* coroutines that resume one another: C calls, which Lua limits to that */

/* Of this thread and of those that wait for it, from the main one down. */
static int sum_boxes(lua_State *L)
{
    size_t *sum = lua_touserdata(L, 1);
    luaL_checkstack(L, 5, NULL);
    lua_settop(L, 0);
    luaL_getmetatable(L, LUA_VERSION_NUM == 503 ? "LUABOX" : "_UBOX*");
    if (!lua_istable(L, 1))
        return 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    lua_State *thread = lua_tothread(L, -1);
    for (int depth = 0; depth < MOST_NESTED && thread && thread != L; depth++) {
        *sum += sum_of_thread(L, thread);
        thread = resumed_by(L, thread);
    }
    *sum += sum_of_thread(L, L);
    return 0;
}

static int count_boxes(lua_State *L, size_t *sum)
{
    if (!lua_checkstack(L, 2))
        return LUA_ERRMEM;
    lua_pushcfunction(L, sum_boxes);
    lua_pushlightuserdata(L, sum);
    const int status = lua_pcall(L, 1, 0, 0);
    if (status)
        lua_pop(L, 1);
    return status;
}

#else

static int count_boxes(lua_State *L, size_t *sum)
{
    (void)L, (void)sum; /* buffers are pieces on the stack, or userdata */
    return 0;
}

#endif

static const void *main_thread(lua_State *L)
{
#if LUA_VERSION_NUM >= 502
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    const void *main = lua_tothread(L, -1);
#else
    const void *main = lua_pushthread(L) ? L : NULL;
#endif
    lua_pop(L, 1);
    return main;
}

/* ---- LuaJIT: the allocator that was found has to be back when the state closes --------------------- */

#if IS_LUAJIT

static const char guard_key = 0;

/* The guard's finalizer, which runs when the state closes. Scripts with the debug library can reach it: they
 * get rid of the counting by it, but not of a cap that is not theirs to lift. */
static int restore(lua_State *L)
{
    struct wrapper **guard = lua_touserdata(L, 1), *w = guard ? *guard : NULL;
    void *ud;
    size_t held = 0;
    if (!w || lua_getallocf(L, &ud) != wrapped_alloc || ud != w || w->account->core->is_bound(w->account))
        return 0;
    *guard = NULL;
    tell_count(L, &held);
    lua_setallocf(L, w->f, w->ud);
    end(w, held);
    return 0;
}

static int make_guard(lua_State *L)
{
    struct wrapper **guard, *w = lua_touserdata(L, 1);
    lua_pushlightuserdata(L, (void *)&guard_key);
    guard = lua_newuserdata(L, sizeof *guard);
    *guard = NULL;
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, restore);
    lua_setfield(L, -2, "__gc");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, (void *)&guard_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    *(struct wrapper **)lua_touserdata(L, -1) = w;
    return 0;
}

static int stand_guard(lua_State *L, struct wrapper *w)
{
    return lua_cpcall(L, make_guard, w);
}

/* The guard of an adoption that came to nothing. */
static void dismiss_guard(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&guard_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    struct wrapper **guard = lua_touserdata(L, -1);
    if (guard)
        *guard = NULL;
    lua_pop(L, 1);
}

#else

static int stand_guard(lua_State *L, struct wrapper *w)
{
    (void)L, (void)w;
    return 0;
}

static void dismiss_guard(lua_State *L)
{
    (void)L;
}

#endif

/* ---- adopting ---------------------------------------------------------------------------------- */

static int put_in_place(lua_State *L, struct wrapper *w)
{
    size_t boxes = 0, held;
    if (!lua_checkstack(L, 4) || count_boxes(L, &boxes) || stand_guard(L, w))
        return ZMALLOC_LUA_NOMEM;
    int failed = 0;
    if (!tell_count(L, &held))
        failed = ZMALLOC_LUA_FINALIZING;
    else if (!zaccount_charge(w->account, held + boxes))
        failed = ZMALLOC_LUA_REFUSED;
    if (failed) {
        dismiss_guard(L);
        return failed;
    }
    w->main = main_thread(L);
    enlist(w);
    lua_setallocf(L, wrapped_alloc, w);
    return 0;
}

int zmalloc_lua_adopt(lua_State *L, zaccount *account)
{
    if (zmalloc_lua_account(L))
        return ZMALLOC_LUA_ADOPTED;
    struct wrapper *w = malloc(sizeof *w);
    zaccount *own = account ? NULL : zaccount_new("Lua", NULL);
    if (!w || !(account || own)) {
        free(w);
        zaccount_free(own);
        return ZMALLOC_LUA_NOMEM;
    }
    if (own)
        zaccount_set_single(own);
    *w = (struct wrapper){.account = account ? account : own, .owns_account = own != NULL};
    w->f = lua_getallocf(L, &w->ud);
    const int failed = put_in_place(L, w);
    if (failed) {
        zaccount_free(own);
        free(w);
    }
    return failed;
}

zaccount *zmalloc_lua_account(lua_State *L)
{
    void *ud;
    lua_Alloc f = lua_getallocf(L, &ud);
    return zcore_account_of(f, ud);
}

int zmalloc_lua_charge(lua_State *L, ptrdiff_t delta)
{
    zaccount *account = zmalloc_lua_account(L);
    if (!account)
        return -1;
    if (delta > 0)
        return zaccount_charge(account, (size_t)delta) ? 0 : -1;
    zaccount_uncharge(account, (size_t)0 - (size_t)delta);
    return 0;
}

/* ---- new states ---------------------------------------------------------------------------------- */

static lua_State *wrap_new(lua_State *L, zaccount *account)
{
    if (zmalloc_lua_adopt(L, account) == 0)
        return L;
    lua_close(L);
    return NULL;
}

/* luaL_newstate()'s allocator is realloc() and free() in every Lua of PUC-Rio, and so is ours where the C
 * library's heap is behind it: then it may take over the few blocks that there are. */
static bool is_same_heap(const zaccount *account)
{
#if defined(_WIN32) || defined(ZMALLOC_LUA_WRAP)
    (void)account; /* each DLL may have a heap of its own; ZMALLOC_LUA_WRAP is for a Lua that was changed */
    return false;
#else
    return account->core == &zcore_self && strcmp(ZPORT_BACKEND, "libc") == 0;
#endif
}

/* The state is charged for what it holds and counts from here on. */
static lua_State *take_over(lua_State *L, zaccount *account)
{
    size_t held;
    if (!tell_count(L, &held) || !zaccount_charge(account, held)) {
        lua_close(L);
        return NULL;
    }
    lua_setallocf(L, zmalloc_lua_alloc, account);
    return L;
}

#if IS_LUAJIT

/* What zmalloc_lua_alloc() does, uncounted: LuaJIT crashes when its lua_newstate() finds no memory. */
static void *uncounted_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    (void)ud, (void)osize;
    if (nsize)
        return realloc(ptr, nsize);
    free(ptr);
    return NULL;
}

/* Not luaL_newstate()'s allocator, which must be there again when the state closes; but without GC64 there is
 * no other, as everything has to be in the lowest part of the address space. */
static lua_State *new_state(zaccount *account)
{
    lua_State *stock = luaL_newstate();
    if (!stock)
        return NULL;
    if ((uintptr_t)stock <= UINT32_MAX || !is_same_heap(account))
        return wrap_new(stock, account);
    lua_CFunction panic = lua_atpanic(stock, NULL);
    lua_close(stock);
    lua_State *L = lua_newstate(uncounted_alloc, NULL);
    if (!L)
        return NULL;
    lua_atpanic(L, panic);
    return take_over(L, account);
}

#else

static lua_State *new_state(zaccount *account)
{
    lua_State *L = luaL_newstate();
    if (!L)
        return NULL;
    return is_same_heap(account) ? take_over(L, account) : wrap_new(L, account);
}

#endif

lua_State *zmalloc_lua_newstate(zaccount *account)
{
    return new_state(account ? account : zaccount_default());
}
