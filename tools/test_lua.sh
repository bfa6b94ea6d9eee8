#!/bin/sh
# Runs the Lua tests of the module with a Lua: tools/test_lua.sh NAME...
#
# tests/lua/test.lua needs nothing but a Lua. The specs need busted, which runs them where its own modules
# are installed for that Lua.
set -eu

for name in "$@"; do
    lua=$(tools/lua.sh "$name" command)
    if [ -z "$lua" ]; then
        echo "skipped: no $name on this machine to run tests/lua/test.lua with" >&2
        continue
    fi
    [ -f tests/lua/test.lua ] || { echo "missing: tests/lua/test.lua" >&2; exit; }
    echo "--- $name: tests/lua/test.lua"
    LUA_CPATH="build/$name/?.so" LUA_PATH="./?.lua" "$lua" tests/lua/test.lua
    if ! command -v busted >/dev/null 2>&1; then
        echo "skipped: no busted on this machine" >&2
    elif busted --lua="$lua" --version >/dev/null 2>&1; then
        echo "--- $name: tests/lua/*_spec.lua"
        busted --lua="$lua" --cpath="build/$name/?.so" --output=plainTerminal --pattern=_spec tests/lua
    else
        echo "skipped: busted does not run with $name" >&2
    fi
done
