#!/bin/sh
# Puts numpy, pandas, IPython and, where there is one, memray into an environment, for the tests that need the
# real ones:
# tools/neighbours.sh FOLDER [NUMPY [MORE...]]
#
# NUMPY is a version such as 1.26, or "newest" that there is for that Python; MORE are further packages.
# Only wheels. Exit status 3, with a line that says so: there is none of that version for that Python.
set -eu

folder=$1 numpy=${2:-newest} stamp="$1/.neighbours"
[ $# -lt 2 ] || shift
shift
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=numpy,pandas,memray

case $numpy in newest) wanted=numpy ;; *) wanted="numpy==$numpy.*" ;; esac
wanted="$wanted pandas ipython $*"
[ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ] || exit 0

# shellcheck disable=SC2086 # a list of words
if ! "$folder/bin/python" -m pip install -q --upgrade $wanted >"$stamp.log" 2>&1; then
    if grep -q "No matching distribution found for numpy==" "$stamp.log"; then
        echo "skipped: no numpy $numpy for $("$folder/bin/python" --version)" >&2
        exit 3
    fi
    cat "$stamp.log" >&2
    exit 1
fi
"$folder/bin/python" -m pip install -q memray >"$stamp.log" 2>&1 ||
    echo "skipped: no memray for $("$folder/bin/python" --version)" >&2
printf '%s\n' "$wanted" >"$stamp"
