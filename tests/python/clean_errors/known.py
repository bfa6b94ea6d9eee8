"""What CPython itself makes unavoidable: runs that fail so are shown apart.

Each entry names the upstream issue and a minimal case, which fails without zmalloc, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    load: str  #: a regular expression for the load's name
    reason: str  #: and one for what happened
    versions: tuple[str, ...]  #: "3.11" is all of them
    issue: str  #: upstream's number or address
    case: str  #: a program that shows it

    def explains(self, load: str, reasons: list[str], version: str) -> bool:
        """Whether all that happened in that run is this."""
        return (
            re.fullmatch(self.load, load) is not None
            and any(version.startswith(one) for one in self.versions)
            and bool(reasons)  # nothing happened: nothing to explain
            and all(re.search(self.reason, reason) for reason in reasons)
        )


KNOWN: tuple[Known, ...] = (
    Known(
        load=r"c_loops\.tuple",
        reason=r"after the MemoryError a late LimitError",
        versions=("3.10", "3.11", "3.12", "3.13"),
        issue="of the kind of python/cpython#151763: _PyTuple_Resize() loses what is in the tuple",
        case="""
import _testcapi, gc, itertools, sys

lost = []
for n in range(1, 600):
    gc.collect()
    before = sys.getallocatedblocks()
    _testcapi.set_nomemory(n)
    try:
        tuple(map(float, itertools.count()))
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
    gc.collect()
    lost.append(sys.getallocatedblocks() - before)
print(max(lost))  # some hundred floats that nothing refers to
""",
    ),
    Known(
        load=r"code\..*",
        reason=r"^ValueError instead of a MemoryError$",
        versions=("3.10", "3.11", "3.12", "3.13"),
        issue="not reported: the parser goes on where _PyPegen_empty_arguments() had no memory, and"
        " the check of the lambda's fields takes the MemoryError's place",
        case="""
import _testcapi

source = "lambda: 0\n" * 40
compile(source, "s", "exec")
seen = set()
for n in range(1200):
    _testcapi.set_nomemory(n, n + 1)
    try:
        compile(source, "s", "exec")
    except MemoryError:
        pass
    except ValueError as error:
        seen.add(str(error))
    except SystemError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
print(seen)  # {"field 'args' is required for Lambda"}
""",
    ),
    Known(
        load=r"growing\.dict_by_setdefault",
        reason=r"^\d+ bytes over the hard limit$",
        versions=("3.13",),
        issue="not reported: dict.setdefault() goes on where the table could not grow, and a loop"
        " of such calls never ends, so the table is granted; the error comes behind it",
        case="""
import _testcapi

table = {n: n for n in range(1000, 1010)}  # is full
_testcapi.set_nomemory(0, 1)
try:
    table.setdefault(5)  # SystemError: ... returned a result with an exception set
finally:
    _testcapi.remove_mem_hooks()
""",
    ),
    Known(
        load=r"asyncio\.tasks_that_hold",
        reason=r"^stderr: Exception ignored in: <bound method \w+\.call_exception_handler ",
        versions=("3.10", "3.11", "3.12", "3.13"),
        issue="not reported: a pending task that is destroyed has the loop report it, and where"
        " nothing is free the report has no memory either: what it raises has nowhere to go",
        case="""
import asyncio
import gc
import logging


def no_memory(record):
    raise MemoryError  # what each request of the report meets


async def wait():
    await asyncio.get_running_loop().create_future()


logging.getLogger("asyncio").addFilter(no_memory)
loop = asyncio.new_event_loop()
task = loop.create_task(wait())
loop.run_until_complete(asyncio.sleep(0))
del task
gc.collect()  # Exception ignored in: <bound method BaseEventLoop.call_exception_handler ...
""",
    ),
    Known(
        load=r"asyncio\.unawaited",
        reason=r"^stderr: Exception ignored (in|on building sys\.unraisablehook arguments): <corou"
        r"|^stderr: Exception ignored in sys\.unraisablehook: ",  # nor is there room to show it
        versions=("3.10", "3.11"),
        issue="not reported: an error that PyThreadState_SetAsyncExc() leaves for a worker is"
        " raised in the Python code that a coroutine's destructor calls, and lost",
        case="""
import ctypes, sys, threading, time, warnings

warnings.simplefilter("ignore")
ignored = []
sys.unraisablehook = lambda seen: ignored.append(seen.exc_type)


async def unawaited():
    pass


def work():
    while not ended:
        try:
            while not ended:
                unawaited()
        except KeyError:
            pass


ended = False
worker = threading.Thread(target=work)
worker.start()
for _ in range(200):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(worker.ident), ctypes.py_object(KeyError)
    )
    time.sleep(0.002)
ended = True
worker.join()
print(len(ignored))  # of 200 that were raised for the loop
""",
    ),
)


def known(load: str, reasons: list[str], version: str) -> Known | None:
    """The entry that explains the run, if there is one."""
    return next((one for one in KNOWN if one.explains(load, reasons, version)), None)
