"""A program that runs somebody else's script under a cap, and goes on.

    python examples/host.py [script.py] [limit]
"""

import gc
import sys
from pathlib import Path

import zmalloc


def run_capped(script, limit):
    """Run the script with at most `limit` in use; True if it came to its end."""
    zmalloc.reset_peak()
    code = compile(Path(script).read_bytes(), script, "exec")
    try:
        with zmalloc.limit(limit):
            exec(code, {"__name__": "__main__"})
    except MemoryError:
        return False
    return True


def main():
    script = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("runaway.py"))
    limit = sys.argv[2] if len(sys.argv) > 2 else "64 MiB"
    before = zmalloc.used()
    finished = run_capped(script, limit)
    gc.collect()  # the script's globals are a cycle
    figures = zmalloc.stats()
    place = figures.last_refused
    print(f"script           {Path(script).name}, limit {limit}")
    print(f"ended            {'by itself' if finished else 'stopped by MemoryError'}")
    if place and place.file:
        where = f"{Path(place.file).name}:{place.line}"
        print(f"last refused     {place.bytes:,} bytes at {where}")
    print(f"used at most     {figures.peak:,} bytes")
    print(f"used before it   {before:,} bytes")
    print(f"used after it    {figures.used:,} bytes")
    print(f"the process      goes on: sum(range(1000)) = {sum(range(1000))}")


if __name__ == "__main__":
    main()
