#!/bin/sh
# Sees to it that the system has what a make target needs: tools/need.sh WHAT...
#
#   c        a C compiler, make, ar
#   python   $PYTHON (default python3) with its headers and venv
#   lua      $LUA (default lua5.4) with its headers, pkg-config
#   test     what only the tests need: clang, jemalloc and mimalloc to build against, the other Luas, the
#            tools of Lua's tests
#   fuzz     clang's libraries for sanitizers and libFuzzer
#   checkers what the long checks need beside that: clang-tidy, cppcheck, libraries for 32 bits, musl
#
# As root on Debian or Ubuntu the missing packages are installed. Elsewhere one line says what is missing,
# all of it, and nothing else happens.
set -eu

PYTHON=${PYTHON:-python3}
LUA=${LUA:-lua5.4}
missing=

want() { # want PACKAGE COMMAND...: the command tells whether it is there
    package=$1
    shift
    case " $missing " in *" $package "*) return ;; esac
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

has_header() { printf '#include <%s>\n' "$1" | ${CC:-cc} -E - ; }

has_libfuzzer() { # is there a library that it is linked with?
    test -e "$(clang -print-resource-dir)/lib/linux/libclang_rt.fuzzer-$(uname -m).a" ||
        test -e "$(clang -print-runtime-dir)/libclang_rt.fuzzer.a"
}
# The version that the package clang stands for, which is in the name of its libraries' package.
clang_major() { apt-cache show clang 2>/dev/null | sed -n 's/^Depends:.*clang-\([0-9]*\).*/\1/p' | head -n 1; }

builds_for_32_bits() { echo '#include <stdlib.h>' | gcc -m32 -E - ; }

# Debian's packages serve Debian's interpreter; another one brings its headers and venv along.
is_debians() { case $(command -v "$PYTHON" || echo none) in /usr/bin/*|none) true ;; *) false ;; esac }

python_package() { # python_package SUFFIX: python3-dev, or python3.12-dev for PYTHON=python3.12
    name=$(basename "$PYTHON")
    case $name in python3.*) echo "$name-$1" ;; *) echo "python3-$1" ;; esac
}

lua_package() { # of the headers
    case $1 in
    lua5.1) echo liblua5.1-0-dev ;;
    luajit) echo libluajit-5.1-dev ;;
    *) echo "lib$1-dev" ;;
    esac
}

# want_lua NAME: a Lua and its headers. Debian has no package of 5.5; tools/lua55.sh builds one.
want_lua() {
    [ "$1" != lua5.5 ] || return 0
    want "$1" command -v "$1"
    want "$(lua_package "$1")" "$(dirname "$0")/lua.sh" "$1" cflags
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
    lua)
        want pkg-config command -v pkg-config
        want_lua "$LUA"
        ;;
    test)
        want g++ command -v g++
        want clang command -v clang
        for lua in lua5.1 lua5.2 lua5.3 lua5.4 luajit; do want_lua $lua; done
        want lua-busted command -v busted
        want lua-check command -v luacheck
        want lua-ldoc command -v ldoc
        want luarocks command -v luarocks
        want valgrind command -v valgrind
        want libjemalloc-dev has_header jemalloc/jemalloc.h
        want libmimalloc-dev has_header mimalloc.h
        ;;
    fuzz)
        want clang command -v clang
        want "libclang-rt-$(clang_major)-dev" has_libfuzzer
        ;;
    checkers)
        want clang-tidy command -v clang-tidy
        want cppcheck command -v cppcheck
        want gcc-multilib builds_for_32_bits
        want musl-tools command -v musl-gcc
        want llvm command -v llvm-ar
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
