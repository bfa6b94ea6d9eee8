"""Several copies of the library in one process: Python's, and two different Lua modules'."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from core import toolchain
from python.processes import snippet

from . import lua54

PREAMBLE = f"""
import gc, os, sys
sys.path.insert(0, {str(lua54.TESTS)!r})
paths = {{"plain": sys.argv[1], "other": sys.argv[2]}}

class Module:                                # in a state of its own, on the stock allocator
    def __init__(self, which):
        import together.lua54 as lua54
        self.state = lua54.State()
        self.state.run(f"zmalloc = package.loadlib([[{{paths[which]}}]], 'luaopen_zmalloc')()")
    def ask(self, what):
        return self.state.value("return zmalloc." + what)
"""


def in_a_process(code: str, module: Path, other_module: Path) -> None:
    snippet(PREAMBLE + code, str(module), str(other_module))


ORDERS = list(itertools.permutations(["python", "plain", "other"]))


@pytest.mark.parametrize("order", ORDERS, ids=["-".join(order) for order in ORDERS])
def test_python_and_two_different_lua_modules_have_one_total_and_one_owner(
    order: tuple[str, ...], module: Path, other_module: Path
) -> None:
    """together.lua54 imports zmalloc, so modules before Python are loaded by hand."""
    in_a_process(
        f"""
import ctypes
order = {order!r}
lua = ctypes.CDLL("liblua5.4.so.0", ctypes.RTLD_GLOBAL)
for name in order:
    if name == "python":
        import zmalloc
    else:
        ctypes.CDLL(paths[name])             # its constructor enters it among the copies
import zmalloc
modules = {{name: Module(name) for name in ("plain", "other")}}

def same_totals():
    for name, module in modules.items():
        module.state.run("collectgarbage()")
        asked = module.ask("total()")
        assert abs(asked - zmalloc.total()) < 2000, (name, asked, zmalloc.total())
same_totals()
before = zmalloc.total()
modules["plain"].state.run("text = string.rep('x', 1000000)")
modules["other"].state.run("text = string.rep('x', 2000000)")
python = bytearray(4000000)
assert 6_990_000 < zmalloc.total() - before < 7_020_000, zmalloc.total() - before
same_totals()

def owner_of(core, own_path):
    # "zmalloc VERSION" of a copy that owns the register itself, "zmalloc VERSION in FILE" of others
    version, _, path = core.partition(" in ")
    return version, os.path.realpath(path or own_path)
seen = {{owner_of(zmalloc.stats().core, zmalloc._core.__file__)}}
for name, module in modules.items():
    seen.add(owner_of(module.ask("stats().core"), paths[name]))
first = zmalloc._core.__file__ if order[0] == "python" else paths[order[0]]
assert len(seen) == 1, seen
[(version, path)] = seen
assert path == os.path.realpath(first), (path, order)
assert version == "zmalloc " + ("99.9.9" if order[0] == "other" else zmalloc.__version__), version

python = None
for module in modules.values():
    module.state.close()
gc.collect()
s = zmalloc.stats()
assert s.total == s.used, "what the states held is given back"
seen = zmalloc.audit()
assert seen.used == seen.counted
""",
        module,
        other_module,
    )


@pytest.mark.parametrize("which", ["plain", "other"])
def test_require_in_a_state_of_lua_allocator_finds_its_account(
    which: str, module: Path, other_module: Path
) -> None:
    """Through the core that made it: the module of another version does not know its inside."""
    in_a_process(
        f"""
import zmalloc
import together.lua54 as lua54
with lua54.counted("plugin") as (state, account):
    held = account.used
    state.run(f"zmalloc = package.loadlib([[{{paths[{which!r}]}}]], 'luaopen_zmalloc')()")
    state.run("collectgarbage() function used() return zmalloc.used() end")
    for size in (1, 100_000):
        state.run(f"text = string.rep('x', {{size}}) collectgarbage()")
        used = state.number("return used()")
        assert abs(used - account.used) < 2000, (used, account.used)
        s = zmalloc.stats()
        assert s.total - s.used == account.used, "counted once"
    peak = state.number("return zmalloc.peak()")
    assert abs(peak - account.peak) < 2000

    account.limit("4 MiB", reserve=0)        # what the host has set
    assert state.number("return zmalloc.limit()") == 4 << 20
    state.run("zmalloc.limit('1 MiB')")      # is lowered by the script,
    assert account.limit() == 1 << 20
    state.run("function hog() local list = {{}} for i = 1, 1e9 do list[i] = {{i}} end end")
    state.run("pcall(hog) collectgarbage()")
    assert account.limit_hit and account.used < 200_000
    state.run("zmalloc.limit(nil)")          # and given back, no more
    assert account.limit() == 4 << 20
    state.run("pcall(zmalloc.limit, '1 GiB')")
    assert account.limit() == 4 << 20
    ok = state.value("return (pcall(string.rep, 'x', 3000000))")
    assert ok is False, "3 MB twice are above 4 MiB"
    account.limit(None)
s = None
gc.collect()
s = zmalloc.stats()
assert s.total == s.used
""",
        module,
        other_module,
    )


def test_two_modules_in_one_state_use_one_account(module: Path, other_module: Path) -> None:
    for first, second in itertools.permutations(["plain", "other"]):
        in_a_process(
            f"""
import zmalloc
import together.lua54 as lua54
state = lua54.State()                        # on the stock allocator
for name in ({first!r}, {second!r}):
    state.run(f"{{name}} = package.loadlib([[{{paths[name]}}]], 'luaopen_zmalloc')()")
state.run("text = string.rep('x', 1000000) collectgarbage()")
a, b, count = state.run("return plain.used(), other.used(), collectgarbage('count') * 1024")
assert abs(a - b) < 100 and abs(a - count) < 100, (a, b, count)
s = zmalloc.stats()
assert abs(s.total - s.used - a) < 5000, "and it is in the total once"
state.run("plain.limit('2 MiB')")
assert state.number("return other.limit()") == 2 << 20
state.run("collectgarbage()")
state.close()
s = zmalloc.stats()
assert s.total == s.used
""",
            module,
            other_module,
        )


def test_two_modules_in_a_stock_lua_have_one_total(
    module: Path, other_module: Path, tmp_path: Path
) -> None:
    script = """
    local a = package.loadlib(arg[1], "luaopen_zmalloc")()
    local b = package.loadlib(arg[2], "luaopen_zmalloc")()
    kept = string.rep("x", 1000000)
    collectgarbage() collectgarbage("stop")
    local x, y, z = a.total(), b.total(), a.used()
    assert(x == y and x == z, x .. " " .. y .. " " .. z)
    local m, n = a.stats().core, b.stats().core
    assert(n:find(m, 1, true) == 1 and n:find(arg[1], 1, true), m .. " " .. n)
    print("done")
    """
    source = tmp_path / "two.lua"
    source.write_text(script, encoding="utf-8")
    for paths in itertools.permutations([module, other_module]):
        done = toolchain.run(["lua5.4", source, *paths], timeout=60)
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
