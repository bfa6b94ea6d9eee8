#!/bin/sh
# Sees to it that the system has what a make target needs: tools/need.sh WHAT...
#
#   c        a C compiler, make, ar
#   python   $PYTHON (default python3) with its headers and venv
#   test     what only the tests need: clang, pkg-config, jemalloc and mimalloc to build against
#
# As root on Debian or Ubuntu the missing packages are installed. Elsewhere one line says what is missing,
# all of it, and nothing else happens.
set -eu

PYTHON=${PYTHON:-python3}
missing=

want() { # want PACKAGE COMMAND...: the command tells whether it is there
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

has_header() { printf '#include <%s>\n' "$1" | ${CC:-cc} -E - ; }

# Debian's packages serve Debian's interpreter; another one brings its headers and venv along.
is_debians() { case $(command -v "$PYTHON" || echo none) in /usr/bin/*|none) true ;; *) false ;; esac }

python_package() { # python_package SUFFIX: python3-dev, or python3.12-dev for PYTHON=python3.12
    name=$(basename "$PYTHON")
    case $name in python3.*) echo "$name-$1" ;; *) echo "python3-$1" ;; esac
}

for what in "$@"; do
    case $what in
    c)
        want gcc command -v "${CC:-cc}"
        want make command -v make
        want binutils command -v ar
        want libc6-dev has_header stdlib.h
        ;;
    python)
        want "$(basename "$PYTHON")" command -v "$PYTHON"
        if is_debians; then
            want "$(python_package venv)" "$PYTHON" -c 'import ensurepip'
            want "$(python_package dev)" "$PYTHON" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))'
        fi
        ;;
    test)
        want g++ command -v g++
        want clang command -v clang
        want pkg-config command -v pkg-config
        want libjemalloc-dev has_header jemalloc/jemalloc.h
        want libmimalloc-dev has_header mimalloc.h
        ;;
    *)
        echo "tools/need.sh: $what is not known" >&2
        exit 2
        ;;
    esac
done

[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "error: missing:$missing (named as on Debian). Install them and try again." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "error: missing system packages. Run: sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1 ||
    { apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends $missing >/dev/null; } ||
    { echo "error: apt-get could not install:$missing" >&2; exit 1; }
