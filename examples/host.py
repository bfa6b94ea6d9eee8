"""A program that runs somebody else's script under a cap, and goes on.

    python examples/host.py [script.py] [limit]
"""

import gc
import sys
from pathlib import Path

import zmalloc


def run_capped(script, limit):
    """Run the script with at most `limit` in use; the error that stopped it, or None."""
    zmalloc.reset_peak()
    code = compile(Path(script).read_bytes(), script, "exec")
    try:
        with zmalloc.limit(limit):
            exec(code, {"__name__": "__main__"})
    except MemoryError as error:
        error.__traceback__ = None  # the script's frames, and all that they hold
        return error
    return None


def main():
    script = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("runaway.py"))
    limit = sys.argv[2] if len(sys.argv) > 2 else "64 MiB"
    before = zmalloc.used()
    error = run_capped(script, limit)
    gc.collect()  # the script's globals are a cycle
    figures = zmalloc.stats()
    print(f"script           {Path(script).name}, limit {limit}")
    print(f"ended            {f'stopped by {type(error).__name__}' if error else 'by itself'}")
    if error:
        print(f"                 {error}")
    print(f"used at most     {figures.peak:,} bytes")
    print(f"used before it   {before:,} bytes")
    print(f"used after it    {figures.used:,} bytes")
    print(f"the process      goes on: sum(range(1000)) = {sum(range(1000))}")


if __name__ == "__main__":
    main()
