"""Cells of the real IPython under a cap: %load_ext zmalloc, %%memlimit SIZE."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from .processes import snippet

pytestmark = pytest.mark.skipif(not find_spec("IPython"), reason="IPython is not installed")

# A shell without a terminal. cell() runs one as a frontend does and tells what came of it.
SHELL = """
import io, os, sys, tempfile
os.environ["IPYTHONDIR"] = tempfile.mkdtemp()
from contextlib import redirect_stderr, redirect_stdout
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
import zmalloc
config = Config()
config.HistoryManager.enabled = False
config.InteractiveShell.colors = "NoColor"
shell = InteractiveShell.instance(config=config)
def cell(text):
    global shown, error
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        result = shell.run_cell(text, store_history=True)
    shown, error = out.getvalue(), result.error_before_exec or result.error_in_exec
    assert zmalloc.limit() is None, "the cell has left a limit behind"
    return result.result
def fails(text, kind):
    cell(text)
    assert isinstance(error, kind), (error, shown)
    return shown
cell("%load_ext zmalloc")
assert error is None, shown
"""


def in_shell(code: str) -> Any:
    return snippet(SHELL + code + "\nprint(True)\n").value


def test_a_cell_that_runs_away_gets_a_memory_error_and_the_shell_lives() -> None:
    in_shell("""
text = fails('''%%memlimit 8MiB
rows = []
while True:
    rows.append(bytes(1000))
''', MemoryError)
assert "Cell In[2], line 4" in text and "rows.append(bytes(1000))" in text, text
assert "_jupyter" not in text and "run_cell_magic(" not in text, text
assert 6000 < cell("len(rows)") < (9 << 20) // 1041, "8 MiB of them, and the reserve"
assert cell("del rows\\nsum(range(10))") == 45 and error is None
assert len(cell("bytes(10_000_000)")) == 10_000_000
""")


def test_the_cap_is_relative_to_the_start_of_the_cell() -> None:
    in_shell("""
cell("kept = bytearray(30_000_000)")
assert cell("%%memlimit 20_000_000 \\nlen(bytearray(9))") is None and "not a size" in shown
assert cell("%%memlimit 20000000\\nlen(bytearray(19_000_000))") == 19_000_000, shown
fails("%%memlimit 20000000\\nmore = bytearray(24_000_000)", MemoryError)
assert "more" not in shell.user_ns
cell("del kept")
assert cell("%%memlimit 20 MiB\\nmore = bytearray(19_000_000)\\nlen(more)") == 19_000_000, shown
""")


def test_a_cell_is_a_cell_like_any_other() -> None:
    """Its names are the user's, its last value is shown, and Out and _ have it."""
    in_shell("""
cell("n = 20")
assert cell("%%memlimit 4MiB\\nm = n + 1\\n2 * m") == 42 and "Out[3]: 42" in shown, shown
assert cell("(_, Out[3], m)") == (42, 42, 21)
assert cell("%%memlimit 4MiB\\n2 * m;") is None or "Out" not in shown, shown
assert cell("%%memlimit 4MiB\\nm = 5") is None and "Out" not in shown, shown
assert cell("%%memlimit 4MiB\\nNone") is None and "Out" not in shown, shown
assert cell("%%memlimit 4MiB\\nfor m in range(3):\\n    m") is None and "Out" not in shown, shown
assert cell("%%memlimit 4MiB\\nfrom __future__ import annotations\\nm + 1") == 3, shown
assert cell("%%memlimit 4MiB\\ndef f(n):\\n    return f(n - 1) + 1 if n else 0\\nf(30)") == 30
assert cell("f(5)") == 5
assert cell("%%memlimit 4MiB\\n%time m\\n!echo one two") is None and "one two" in shown, shown
assert "division by zero" in fails("%%memlimit 4MiB\\nm = 7\\n1 / 0", ZeroDivisionError)
assert ", line 3" in shown and cell("m") == 7, shown
assert "line 3" in fails("%%memlimit 4MiB\\nm = 9\\nm = = 8", SyntaxError), shown
assert cell("m") == 7
names = set(shell.user_ns) - set(shell.user_ns_hidden)
assert {name for name in names if "zmalloc" in name or "memlimit" in name} == set(), names
""")


def test_what_a_failed_cell_would_have_shown_is_not_kept() -> None:
    in_shell("""
from zmalloc import _jupyter
class Big: pass
shell.user_ns["Big"] = Big
cell("%%memlimit 4MiB\\nBig()")
assert _jupyter._value == [None]
_jupyter.keep(Big())
cell("1")
assert _jupyter._value == [None]
""")


def test_top_level_await_works_under_the_cap() -> None:
    in_shell("""
cell("import asyncio")
cell("%%memlimit 8MiB\\nawait asyncio.sleep(0.001)\\nawait asyncio.sleep(0, 'slept')")
assert "Out[3]: 'slept'" in shown, shown
text = fails('''%%memlimit 8MiB
async def grow():
    rows = []
    while True:
        rows.append(bytes(10_000))
        await asyncio.sleep(0)
await grow()
''', MemoryError)
assert "line 7" in text and "await grow()" in text, text
assert cell("await asyncio.sleep(0, 5)") == 5
assert cell("%%memlimit 8MiB\\n[n async for n in (lambda: (n async for n in g()))()]") is None
assert isinstance(error, NameError), error
""")


def test_a_wrong_size_is_a_usage_error_that_names_the_value() -> None:
    in_shell("""
from IPython.core.error import UsageError
for wrong in ("4 parsecs", "", "0", "-1", "2GiB extra", "1e3", "101%"):
    text = fails(f"%%memlimit {wrong}\\nran = True", UsageError)
    assert text.startswith("UsageError: ") and repr(wrong) in text, text
    assert len(text.splitlines()) == 1, text
fails("%%memlimit 2GiB --reserve much\\nran = True", UsageError)
assert "--reserve='much'" in shown, shown
fails("%%memlimit 2GiB --reserve\\nran = True", UsageError)
assert "body is empty" in fails("%%memlimit 2GiB", UsageError)
assert "ran" not in shell.user_ns
""")


def test_the_reserve_is_what_the_handling_may_take() -> None:
    in_shell("""
for text in ("--reserve 4 MiB", "--reserve=4194304"):
    cell(f"%%memlimit 8 MiB {text}\\nimport zmalloc\\ntold = zmalloc.stats().reserve")
    assert shell.user_ns["told"] == 4 << 20, shown
""")


def test_it_works_below_other_magics_with_variables_and_when_called() -> None:
    in_shell("""
assert cell("%%time\\n%%memlimit 4MiB\\n6 * 7") == 42 and "Wall time" in shown, shown
cell("%%capture taken\\n%%memlimit 4MiB\\nprint('said')")
assert cell("taken.stdout") == "said\\n"
cell("size = '3 MiB'")
cell("%%memlimit {size}\\nimport zmalloc\\nroom = zmalloc.limit() - zmalloc.used()")
assert error is None and abs(shell.user_ns["room"] - (3 << 20)) < 65_536, shown
shell.run_cell_magic("memlimit", "1MiB", "called = 5")
assert shell.user_ns["called"] == 5
assert "at most SIZE more" in (cell("%%memlimit?") or shown) and error is None
assert shell.check_complete("%%memlimit 1MiB")[0] == "incomplete"
assert shell.check_complete("%%memlimit 1MiB\\nx = 1\\n")[0] == shell.check_complete(
    "%%time\\nx = 1\\n")[0]
""")


def test_the_extension_comes_and_goes() -> None:
    in_shell("""
from IPython.core.error import UsageError
before = len(shell.ast_transformers), len(shell.input_transformers_cleanup)
cell("%load_ext zmalloc")
cell("%reload_ext zmalloc")
zmalloc.load_ipython_extension(shell)
assert (len(shell.ast_transformers), len(shell.input_transformers_cleanup)) == before
fails("%%memlimit 1MiB\\nz = bytearray(10**7)", MemoryError)
cell("%unload_ext zmalloc")
assert len(shell.ast_transformers) == before[0] - 1
fails("%%memlimit 1MiB\\nz = bytearray(10**7)", UsageError)
cell("%load_ext zmalloc")
shell.ast_transformers.clear()            # by another extension: nothing may run without its cap
fails("%%memlimit 1MiB\\nran = True", UsageError)
assert "ran" not in shell.user_ns
""")


def test_without_the_hooks_the_cell_does_not_run() -> None:
    snippet(
        SHELL
        + """
from IPython.core.error import UsageError
assert "zmalloc.install()" in fails("%%memlimit 1MiB\\nran = True", UsageError)
assert "ran" not in shell.user_ns
""",
        env={"ZMALLOC_NO_INSTALL": "1"},
    )


def test_the_import_of_zmalloc_brings_no_ipython() -> None:
    snippet("""
        import sys, zmalloc
        assert zmalloc.load_ipython_extension.__doc__
        assert not [name for name in sys.modules if "IPython" in name or "_jupyter" in name]
        """)


@pytest.mark.skipif(not find_spec("ipykernel"), reason="ipykernel is not installed")
def test_a_real_kernel_lives_through_a_cell_at_its_cap() -> None:
    snippet(
        """
        import os, sys, tempfile
        os.environ["IPYTHONDIR"] = os.environ["JUPYTER_RUNTIME_DIR"] = tempfile.mkdtemp()
        from jupyter_client.manager import start_new_kernel
        manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
        def cell(text):
            taken = {}
            def take(message):
                content = message["content"]
                if message["msg_type"] == "execute_result":
                    taken["value"] = content["data"]["text/plain"]
                elif message["msg_type"] == "stream":
                    taken["text"] = taken.get("text", "") + content["text"]
            reply = client.execute_interactive(text, timeout=60, output_hook=take)["content"]
            return reply["status"], reply.get("ename"), taken.get("value"), taken.get("text")
        try:
            print(cell("%load_ext zmalloc\\nimport os, zmalloc, asyncio"))
            pid = cell("os.getpid()")[2]
            assert cell("%%memlimit 8MiB\\nkept = 6 * 7\\nkept") == ("ok", None, "42", None)
            away = "rows = []\\nwhile True:\\n    rows.append(bytes(5000))"
            assert cell("%%memlimit 16MiB\\n" + away)[:2] == ("error", "LimitError")
            away = "rows = []\\nwhile True:\\n    rows.append(await asyncio.sleep(0, bytes(5000)))"
            status = cell("%%memlimit 16MiB\\n" + away)
            assert status[:2] == ("error", "LimitError"), status
            assert cell("%%memlimit 16MiB\\nawait asyncio.sleep(0.01, 5)")[2] == "5"
            assert cell("%%memlimit much\\n1")[:2] == ("error", "UsageError")
            assert cell("zmalloc.limit(), len(bytes(50_000_000))")[2] == "(None, 50000000)"
            assert cell("os.getpid()")[2] == pid
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        """,
        timeout=240,
    )
