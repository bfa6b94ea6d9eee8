#!/bin/sh
# Each public entry with each of its requests for memory refused, on each Python and each Lua.
#
#     tools/faults.sh FOLDER PYTHON...    FOLDER gets faults.json; each PYTHON has the project installed
#
# The loops print or append a line of JSON each: see entries.c, fault_loops.py and module/faults.lua. One that fails does
# not stop the others.
set -u

folder=$1; shift
mkdir -p "$folder"
lines="$folder/faults.lines"
: >"$lines"
status=0

echo "=== the C core: each function of the headers" >&2
ZMALLOC_FAULT_COUNTS="$lines" "$1" -m pytest -q tests/core/test_entries.py >&2 || status=1
for python in "$@"; do
    echo "=== $("$python" --version): each name of the package" >&2
    "$python" tests/python/fault_loops.py >>"$lines" || status=1
done
for lua in $(tools/lua.sh list 2>/dev/null); do
    command=$(tools/lua.sh "$lua" command)
    [ -n "$command" ] || { echo "skipped: no $lua on this machine" >&2; continue; }
    echo "=== $lua: each function of the module" >&2
    ZMALLOC_FAULT_COUNTS="$lines" LUA_CPATH="build/$lua/?.so" LUA_PATH="./?.lua" \
        "$command" tests/lua/test.lua "each request that fails" >&2 || status=1
done

"$1" - "$lines" "$folder/faults.json" <<'END' || status=1
import datetime
import json
import sys
from pathlib import Path

runs = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
names = "entries", "runs", "faults", "errors", "differences"
total = {name: sum(run[name] for run in runs) for name in names}
result = {"date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), **total, "loops": runs}
Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
for run in [*runs, {"front": "all", "with": "", **total}]:
    print(f"{run['front'] + ' ' + run['with']:32}" + "".join(f"{run[name]:>8} {name}" for name in names))
    for what in run.get("what", []):
        print(f"    {what}")
END
exit $status
