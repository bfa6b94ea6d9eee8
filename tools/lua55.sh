#!/bin/sh
# Builds a Lua 5.5 to test with, which Debian has no package of: tools/lua55.sh FOLDER
#
# The sources are those that lupa's source distribution on PyPI brings along. FOLDER then has the program
# lua5.5, liblua5.5.a, the headers and lua5.5.pc. Status 3: it could not be downloaded.
set -eu

folder=$1
python=${PYTHON:-python3}
version=2.8 # of lupa

[ ! -f "$folder/lua5.5.pc" ] || exit 0
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# pip asks the package for its metadata, which would also build LuaJIT.
export PIP_DISABLE_PIP_VERSION_CHECK=1 LUPA_NO_LUAJIT=true
{
    "$python" -m venv "$scratch/venv" &&
        "$scratch/venv/bin/pip" install -q setuptools wheel &&
        "$scratch/venv/bin/pip" download -q --no-deps --no-build-isolation --no-binary :all: \
            -d "$scratch" "lupa==$version"
} >"$scratch/log" 2>&1 || true
archive=$scratch/lupa-$version.tar.gz
if [ ! -f "$archive" ]; then
    echo "skipped: lua5.5, for lupa $version could not be downloaded" >&2
    exit 3
fi
tar -xzf "$archive" -C "$scratch" "lupa-$version/third-party/lua55"
source=$scratch/lupa-$version/third-party/lua55
for file in "$source"/l*.c; do
    case $(basename "$file") in ltests.c | lua.c | luac.c) continue ;; esac
    echo "$file"
done >"$scratch/files"
(
    cd "$scratch"
    # shellcheck disable=SC2046 # a list of files
    ${CC:-cc} -std=c11 -O2 -fPIC -DLUA_USE_LINUX -I"$source" -c $(cat files)
    ar rcs "$folder/liblua5.5.a" l*.o
    ${CC:-cc} -std=c11 -O2 -DLUA_USE_LINUX -I"$source" "$source/lua.c" "$folder/liblua5.5.a" \
        -o "$folder/lua5.5" -Wl,-E -lm -ldl
)
for header in lua.h luaconf.h lauxlib.h lualib.h; do
    cp "$source/$header" "$folder"
done
cat >"$scratch/pc" <<PC
prefix=$folder
program=$folder/lua5.5

Name: lua5.5
Description: Lua, built for tests
Version: $(sed -n 's/^#define LUA_VERSION_RELEASE_N[[:space:]][[:space:]]*/5.5./p' "$folder/lua.h")
Cflags: -I$folder
Libs: -L$folder -l:liblua5.5.a -lm -ldl
PC
mv "$scratch/pc" "$folder/lua5.5.pc"
