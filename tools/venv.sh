#!/bin/sh
# Makes a virtual environment and installs the project into it: tools/venv.sh PYTHON FOLDER [EXTRA]
#
# EXTRA is one of pyproject's optional dependencies. The build happens in a folder of its own, so that
# interpreters of one version do not take each other's objects: one that is gone afterwards, or
# ZMALLOC_SOURCE, which stays. Nothing is done when the environment is newer than all sources.
set -eu

python=$1 folder=$2 extra=${3:-}
stamp="$folder/.installed${extra:+-$extra}"

unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK=1

wanted=$("$python" -c 'import sys; print(sys.base_prefix, sys.version)')
if [ -f "$folder/.python" ] && [ "$(cat "$folder/.python")" != "$wanted" ]; then
    rm -rf "$folder"
fi
if [ -f "$stamp" ] && [ -z "$(find csrc zmalloc_py setup.py pyproject.toml -newer "$stamp" -type f \
    ! -path '*/__pycache__/*' | head -n 1)" ]; then
    exit 0
fi

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
printf '%s\n' "$wanted" >"$folder/.python"

if [ -n "${ZMALLOC_SOURCE:-}" ]; then
    source=$ZMALLOC_SOURCE
    rm -rf "$source"
    mkdir -p "$source"
else
    source=$(mktemp -d)
    trap 'rm -rf "$source"' EXIT
fi
cp -R csrc zmalloc_py setup.py pyproject.toml MANIFEST.in README.md LICENSE "$source"
log="$source/log"
"$folder/bin/python" -m pip install -q --no-warn-script-location --force-reinstall --no-deps \
    "$source" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if [ -n "$extra" ]; then
    "$folder/bin/python" -m pip install -q "$source[$extra]" >"$log" 2>&1 ||
        { cat "$log" >&2; exit 1; }
fi
rm -f "$folder"/.installed*
touch "$stamp"
