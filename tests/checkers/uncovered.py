"""What make coverage leaves uncovered, and why: its figures are shown with and without these.

An entry that nothing needs any more is named at the end of a run.
"""

from __future__ import annotations

from typing import NamedTuple


class Left(NamedTuple):
    """A function, or the lines that have a text in them, each with what is indented below it."""

    file: str
    where: str
    why: str


ASSERTION = "what is asserted is never otherwise"
RACE = "another thread has to come between two instructions; make sanitize and soak look for it"
LIST = "what is taken out of a list is in it; the other way out is for a caller's mistake"
MALLOC = "malloc() of a few bytes has to fail in a process that the loader has just filled"
SYSTEM = "a system without /proc, or whose sysconf() fails"
MACHINE = "no machine of ours does not tell how much memory it has"
STACK = "lua_checkstack() has to fail where a script cannot be at that moment"
EITHER = "the names of objects, of which there always is one"
START = "a process that finds no memory at its very start"
DISK = "a limit on the size of files stops the counts of coverage, too: test_a_full_disk does it"
DEBUG = "what the debug library may have put in the place of our own entries"
OTHER_LUA = "a Lua that none of the tested ones is: 32 bits, or with an allocator of its own"
ROOM = "a heap between two sizes at one moment of the collector: a matter of chance"

LEFT: list[Left] = [
    # ---- csrc
    Left("csrc/zaccount.c", "assert(", ASSERTION),
    Left("csrc/zaccount.c", "atomic_compare_exchange_weak(&a->used, &used, used + n)", RACE),
    Left("csrc/zaccount.c", "if (zport_likely(used + n <= quarters_above(a, quarters)))", RACE),
    Left("csrc/zaccount.c", "/* a mark came down: look again */", RACE),
    Left("csrc/zaccount.c", "/* it fell before rearm stood */", RACE),
    Left("csrc/zcore.c", "zcore_delist", LIST),
    Left("csrc/zcore.c", "if (!atomic_load(&is_listed)) {", RACE),
    Left("csrc/zcore.c", "while (!atomic_compare_exchange_weak(&owner->next", RACE),
    Left("csrc/zcore.h", "if (nsize > osize || may_refuse)",
         "no allocator beneath refuses to shrink a block for a caller that takes no refusal"),
    Left("csrc/zmap.c", "if (clear > at && zport_discard(", "madvise() of our own pages fails"),
    Left("csrc/zmarks.c", "while (*at && *at != scope)", LIST),
    Left("csrc/zmarks.c", "assert(*at); /* it was entered */", ASSERTION),
    Left("csrc/zmarks.c", "if (*at)", LIST),
    Left("csrc/zport.c", "zport_page_size", SYSTEM),
    Left("csrc/zport.c", "zport_rss", SYSTEM),
    Left("csrc/zport.c", "zport_memory_size_at", SYSTEM),
    Left("csrc/zport.c", "if (n > 0 && (size_t)n < sizeof name", "longer than PATH_MAX"),
    Left("csrc/zport.c", "while (length > 0 && path[--length] != '/')",
         "the system's groups all have names that begin with a slash"),
    Left("csrc/zport.c", "if (have == sizeof text - 1)",
         "a line of smaps that is longer than PATH_MAX"),
    Left("csrc/zport.c", "collect_name", MALLOC),
    Left("csrc/zport.c", "visit_symbol", "an object that is closed between two looks at the list"),
    Left("csrc/zport.c", "zport_object_name", EITHER),
    Left("csrc/zport.c", "zport_pin", EITHER),
    Left("csrc/zsize.c", "while (size >> shift >= 1024 && units[unit + 1]) {",
         "no size_t is above the last unit"),
    # ---- lua
    Left("lua/lzmalloc.c", "account_of",
         "a host that takes our allocator out of a state that goes on with our module"),
    Left("lua/lzmalloc.c", "if ((uint64_t)whole > ZSIZE_MAX)", OTHER_LUA),
    Left("lua/lzmalloc.c", "if (relative && memory == 0)", MACHINE),
    Left("lua/lzmalloc.c", "owner->version, object ? object", EITHER),
    Left("lua/lzmalloc.c", "last_of", DEBUG),
    Left("lua/lzmalloc.c", "adopt",
         "the state's own new account has no cap; tests/lua/adopt.c has those of hosts"),
    Left("lua/zcompat.h", "lua_pushinteger(L, n > INT64_MAX ?", "more than 8 EiB"),
    Left("lua/zcompat.h", "if (!lua_checkstack(L, 2))", STACK),
    Left("lua/zcompat.h", "return whole < 0 || rest < 0 ? -1",
         "Lua's count is below 0 in __gc only"),
    Left("lua/zlua.c", "if (getpid() != run.pid)", "Lua's own libraries cannot fork"),
    Left("lua/zlua.c", "if (run.is_closing)", "os.exit() by a __gc while the state is closed"),
    Left("lua/zlua.c", "if (status == LUA_YIELD) {", "a C function of another library that yields"),
    Left("lua/zlua.c", "stop", "behind an error"),
    Left("lua/zlua.c", "FILE *out = m->is_whole || !m->text", START),
    Left("lua/zlua.c", "if (fclose(out) != 0)", START),
    Left("lua/zlua.c", "fail", START),
    Left("lua/zlua.c", "make_state", START),
    Left("lua/zlua.c", "if (!make_state())", START),
    Left("lua/zlua_options.c", "if (relative && memory == 0)", MACHINE),
    Left("lua/zlua_options.c", "if (!whole)", START),
    Left("lua/zlua_options.c", "if (!o->code)", START),
    Left("lua/zlua_options.c", "o->name = argc > 0 && argv[0][0] ?", "a caller without argv[0]"),
    Left("lua/zlua_report.c", "core", "zlua has the only core of its process"),
    Left("lua/zlua_report.c", "if (!f->threads)", "each state has a main thread"),
    Left("lua/zlua_report.c", "f->total ?", "a state holds something to its end"),
    Left("lua/zlua_report.c", "if (f->total)", "a state holds something to its end"),
    Left("lua/zlua_report.c", 'fputs("    \\"fragmentation\\": null', "the same"),
    Left("lua/zlua_report.c", "write_over", DISK),
    Left("lua/zlua_report.c", "write_beside", DISK),
    Left("lua/zlua_report.c", "if (!beside)", START),
    Left("lua/zmalloc_lua_state.c", "if (!lua_checkstack(", STACK),
    Left("lua/zmalloc_lua_state.c", "wrap_new", OTHER_LUA),
    Left("lua/zmalloc_lua_state.c", "new_state", OTHER_LUA),
    Left("lua/zmalloc_lua_state.c", "take_over", OTHER_LUA),
    Left("lua/zpace.c", "plan", ROOM),
    Left("lua/zpace.c", "set_pause", ROOM),
    Left("lua/zpace.c", "static void set_next(", "what versions before 5.4 have for no call"),
    Left("lua/zpace.c", "if (push_table(L)) {", DEBUG),
    Left("lua/zpace.c", "if (!a || !push_table(L)) {", DEBUG),
    Left("lua/zpace.c", "if (!lua_checkstack(L, 4))", STACK),
]
