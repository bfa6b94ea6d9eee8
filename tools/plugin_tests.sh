#!/bin/sh
# Runs the tests of the pytest plugin: tools/plugin_tests.sh PYTHON FOLDER [OPTIONS OF PYTEST...]
#
# FOLDER is an environment as tools/venv.sh makes it. pytest-memray is put beside if there is a wheel of it for
# that Python; else its tests are skipped, by name. PYTEST=7.4 takes that pytest, what goes with it, and no memray.
set -eu

python=$1 folder=$2
shift 2
export PIP_DISABLE_PIP_VERSION_CHECK=1

echo "=== the pytest plugin, $("$python" --version) ($python)${PYTEST:+, pytest $PYTEST}"
tools/venv.sh "$python" "$folder" test
if [ -n "${PYTEST:-}" ]; then
    "$folder/bin/python" -m pip install -q "pytest==$PYTEST.*" pytest-asyncio pytest-cov pytest-rerunfailures \
        pytest-xdist
elif ! "$folder/bin/python" -c 'import pytest_memray' 2>/dev/null; then
    "$folder/bin/python" -m pip install -q --only-binary=memray pytest-memray >"$folder/.memray.log" 2>&1 ||
        echo "skipped: no pytest-memray for $("$python" --version)" >&2
fi
"$folder/bin/python" -m pytest -q "$@" tests/plugin
