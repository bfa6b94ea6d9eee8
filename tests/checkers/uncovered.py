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
NONE_LEFT = "malloc() itself has to fail: what fails on request is what CPython asks for"
CLEARED = "a call into an interpreter's module after it has been cleared"
KNOWN_PYTHON = "a CPython whose insides are not as in each that we build for"
GRANTED = "what an error on its way asks for is granted: see relief.h"
ONE_IMPORT = "happens once, while the first import has all memory there is"
NUMPYS = "numpys of other versions: make test-neighbours"
OTHER_PYTHON = "for other versions than the one by which the Python files are looked at"
TRACER = "requests fail on purpose there, also those of the tracer, which then stops"
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
    # ---- zmalloc_py/_core
    Left("zmalloc_py/_core/accounts.c", "new_home", NONE_LEFT),
    Left("zmalloc_py/_core/accounts.c", "new_account", NONE_LEFT),
    Left("zmalloc_py/_core/accounts.c", "account_dealloc", NONE_LEFT),
    Left("zmalloc_py/_core/accounts.c", "if (!type) {", CLEARED),
    Left("zmalloc_py/_core/arenas.c", "make_room", NONE_LEFT),
    Left("zmalloc_py/_core/arenas.c", "arenas_add", NONE_LEFT),
    Left("zmalloc_py/_core/arenas.c", "is_sound", KNOWN_PYTHON),
    Left("zmalloc_py/_core/arenas.c", "room_in", KNOWN_PYTHON),
    Left("zmalloc_py/_core/arenas.c", "is_counted", KNOWN_PYTHON),
    Left("zmalloc_py/_core/arenas.c", "arenas_are_readable", KNOWN_PYTHON),
    Left("zmalloc_py/_core/arrays.c", "has_handlers", NUMPYS),
    Left("zmalloc_py/_core/arrays.c", "default_handler", NUMPYS),
    Left("zmalloc_py/_core/arrays.c", "is_counted_by_raw", NUMPYS),
    Left("zmalloc_py/_core/arrays.c", "arrays_look", NUMPYS),
    Left("zmalloc_py/_core/asks.c", "asks_queue", "CPython's list of pending calls is full"),
    Left("zmalloc_py/_core/asks.c", "asks_place", RACE),
    Left("zmalloc_py/_core/asks.c", "asks_withdraw", RACE),
    Left("zmalloc_py/_core/asks.c", "has_cause", RACE),
    Left("zmalloc_py/_core/asks.c", "asks_forked", "a fork in the moment when another thread asks"),
    Left("zmalloc_py/_core/asks.c", "asks_forget", "a scope is left while its error is on its way"),
    Left("zmalloc_py/_core/budgets.c", "new_gauge", NONE_LEFT),
    Left("zmalloc_py/_core/budgets.c", "make", NONE_LEFT),
    Left("zmalloc_py/_core/budgets.c", "if (t->state & UNLISTED)", "code runs in a thread first"),
    Left("zmalloc_py/_core/caps.c", "new_limit", NONE_LEFT),
    Left("zmalloc_py/_core/embed.c", "zmalloc_py_install", "a host that calls it twice, or late"),
    Left("zmalloc_py/_core/fail_after.c", "fail_after_make", NONE_LEFT),
    Left("zmalloc_py/_core/faults.c", "if (!state)", "the fault is in this thread"),
    Left("zmalloc_py/_core/faults.c", "if (t->state & UNLISTED)", "code runs in a thread first"),
    Left("zmalloc_py/_core/gauges.c", "if (t->state & UNLISTED)", "code runs in a thread first"),
    Left("zmalloc_py/_core/gauges.c", "gauges_find", "asked for those that are there"),
    Left("zmalloc_py/_core/hooks.c", "hold", RACE),
    Left("zmalloc_py/_core/hooks.c", "take_both", RACE),
    Left("zmalloc_py/_core/hooks.c", "take_arena", RACE),
    Left("zmalloc_py/_core/hooks.c", "hooks_have_many_gils", "GILs only become more"),
    Left("zmalloc_py/_core/hooks.c", "ask_uncounted", "the map has no memory at an error"),
    Left("zmalloc_py/_core/hooks.c", "resize_uncounted", "the same"),
    Left("zmalloc_py/_core/hooks.c", "get_uncounted_chunk", "the same, for a chunk of frames"),
    Left("zmalloc_py/_core/hooks.c", "allocate_chunk", "the same, for a chunk of frames"),
    Left("zmalloc_py/_core/hooks.c", "if (!zport_mul(count, size, &n))", NUMPYS),
    Left("zmalloc_py/_core/install.c", "stop_tracemalloc", NONE_LEFT),
    Left("zmalloc_py/_core/install.c", "restart_tracemalloc", NONE_LEFT),
    Left("zmalloc_py/_core/install.c", "install", RACE),
    Left("zmalloc_py/_core/install.c", "why_no_arenas", KNOWN_PYTHON),
    Left("zmalloc_py/_core/install.c", "if (!traced)", NONE_LEFT),
    Left("zmalloc_py/_core/install.c", "begin_installing", "an import inside of an import of ours"),
    Left("zmalloc_py/_core/install.c", "if (!begin_installing())", "the same"),
    Left("zmalloc_py/_core/install.c", "hooks_install_exact", "its callers look before"),
    Left("zmalloc_py/_core/install.c", "hooks_install_held", "its callers look before"),
    Left("zmalloc_py/_core/install.c", "install_exact", "its callers look before"),
    Left("zmalloc_py/_core/limit_error.c", "set", GRANTED),
    Left("zmalloc_py/_core/limit_error.c", "fill", GRANTED),
    Left("zmalloc_py/_core/limit_error.c", "limit_error_begin", GRANTED),
    Left("zmalloc_py/_core/limit_error.c", "Py_TRASHCAN_", "CPython's own macros"),
    Left("zmalloc_py/_core/limit_error.c", "Py_VISIT(", "CPython's own macro"),
    Left("zmalloc_py/_core/machinery.c", "machinery_init", ONE_IMPORT),
    Left("zmalloc_py/_core/machinery.c", "module_of", KNOWN_PYTHON),
    Left("zmalloc_py/_core/modes.c", "install_held", ONE_IMPORT),
    Left("zmalloc_py/_core/modes.c", "modes_install", ONE_IMPORT),
    Left("zmalloc_py/_core/module.c", "Py_VISIT(", "CPython's own macro"),
    Left("zmalloc_py/_core/module.c", "core_name", EITHER),
    Left("zmalloc_py/_core/relief.c", "take_one", "all that is kept for unwinding is taken"),
    Left("zmalloc_py/_core/repair.c", "make_room", NONE_LEFT),
    Left("zmalloc_py/_core/repair.c", "copy_table", NONE_LEFT),
    Left("zmalloc_py/_core/repair.c", "read_jump", KNOWN_PYTHON),
    Left("zmalloc_py/_core/repair.c", "handler_of", KNOWN_PYTHON),
    Left("zmalloc_py/_core/repair.c", "put_in_place", NONE_LEFT),
    Left("zmalloc_py/_core/repair.c", "repair_begin", NONE_LEFT),
    Left("zmalloc_py/_core/repair.c", "repair_thread_ended", "a thread that ends in its handler"),
    Left("zmalloc_py/_core/runner.c", "leave_by_sigint", "behind raise(SIGINT)"),
    Left("zmalloc_py/_core/runner.c", "end_with_exception", "behind the end of the process"),
    Left("zmalloc_py/_core/runner.c", "end_with_exit", "behind the end of the process"),
    Left("zmalloc_py/_core/runner.c", "runner_execute", "behind the end of the process"),
    Left("zmalloc_py/_core/runner.c", "note_status", "what notes it is the runner's own"),
    Left("zmalloc_py/_core/scopes.c", "scope_new", NONE_LEFT),
    Left("zmalloc_py/_core/scopes.c", "scope_free", LIST),
    Left("zmalloc_py/_core/sizes.c", "if ((unsigned long long)n > ZSIZE_MAX)", "32 bits"),
    Left("zmalloc_py/_core/sizes.c", "if (!text)", "an ASCII string is its own UTF-8"),
    Left("zmalloc_py/_core/sizes.c", "if (relative && memory == 0) {", MACHINE),
    Left("zmalloc_py/_core/threads.c", "thread_rare", NONE_LEFT),
    Left("zmalloc_py/_core/threads.c", "in_child", "a fork in a thread that has never allocated"),
    Left("zmalloc_py/_core/tied.c", "tied_remove", LIST),
    Left("zmalloc_py/_core/verdict.c", "raise_here", GRANTED),
    Left("zmalloc_py/_core/verdict.c", "call_back", GRANTED),
    Left("zmalloc_py/_core/verdict.c", "collect_garbage", "gc.collect() raises"),
    Left("zmalloc_py/_core/verdict.c", "verdict_collect", "a verdict inside of a verdict"),
    Left("zmalloc_py/_core/verdict.c", "judge", RACE),
    Left("zmalloc_py/_core/verdict.c", "give", RACE),
    Left("zmalloc_py/_core/verdict.c", "spare_for_room", RACE),
    Left("zmalloc_py/_core/verdict.c", "hand_on", RACE),
    Left("zmalloc_py/_core/verdict.c", "verdict_init", ONE_IMPORT),
    Left("zmalloc_py/_core/where.c", "copy_name", KNOWN_PYTHON),
    Left("zmalloc_py/_core/where.c", "where_note", RACE),
    Left("zmalloc_py/_core/where.c", "where_note_place", RACE),
    Left("zmalloc_py/_core/with.c", "late_bound", CLEARED),
    Left("zmalloc_py/_core/with.c", "Py_VISIT(", "CPython's own macro"),
    # ---- zmalloc_py
    Left("zmalloc_py/_cli.py", 'raise OSError("no VmData', SYSTEM),
    Left("zmalloc_py/_cli.py", "if hard != resource.RLIM_INFINITY:", "a hard limit on the machine"),
    Left("zmalloc_py/_cli.py", "except (ImportError, OSError, ValueError) as error:", SYSTEM),
    Left("zmalloc_py/_cli.py", 'if died and options.program[0] == "-c"', OTHER_PYTHON),
    Left("zmalloc_py/_embedded.py", "if spec is None or spec.loader is None:", "a host without us"),
    Left("zmalloc_py/_embedded.py", "if module.__version__ != __version__:", "two versions in one"),
    Left("zmalloc_py/_plugin/faults.py", "for n in range(1, most + 2):", TRACER),
    Left("zmalloc_py/_plugin/faults.py", 'getattr(function, "__qualname__", None)', TRACER),
    Left("zmalloc_py/_plugin/window.py", "if sys.version_info", OTHER_PYTHON),
    Left("zmalloc_py/_plugin/window.py", "except ValueError:  # on another drive", "Windows"),
]
