#!/bin/sh
# Prints what building against a Lua needs: tools/lua.sh NAME (cflags|libs|cmod PREFIX|command)
#
# NAME is lua5.1 to lua5.5, or luajit. "cmod" is the folder of C modules below a prefix, "command" the
# interpreter, empty if this machine has none. A Lua without headers is one line that names the package.
# tools/lua.sh list prints the names of those that can be built against; the others are named on stderr.
set -eu

all='lua5.4 lua5.1 lua5.2 lua5.3 luajit lua5.5'

# A Lua 5.5 that lua55.sh has built is one like the others.
export PKG_CONFIG_PATH="${PKG_CONFIG_PATH:+$PKG_CONFIG_PATH:}$(cd "$(dirname "$0")/.." && pwd)/build/lua5.5/lua"

remedy() {
    case $1 in
    lua5.1) echo "On Debian and Ubuntu: apt-get install liblua5.1-0-dev pkg-config" ;;
    luajit) echo "On Debian and Ubuntu: apt-get install libluajit-5.1-dev pkg-config" ;;
    lua5.5) echo "No Debian package has them; 'make test-lua55' builds its own" ;;
    *) echo "On Debian and Ubuntu: apt-get install lib$1-dev pkg-config" ;;
    esac
}

is_version() { # is_version PC 5.4: tells apart what is just called "lua"
    case $(pkg-config --modversion "$1") in "$2" | "$2".*) true ;; *) false ;; esac
}

# The name by which pkg-config knows it: Debian and its like, Arch and Fedora, BSD, upstream.
module() {
    command -v pkg-config >/dev/null 2>&1 || return 1
    if [ "$1" = luajit ]; then
        pkg-config --exists luajit && echo luajit
        return
    fi
    version=${1#lua}
    for candidate in "lua$version" "lua-$version" "lua$(echo "$version" | tr -d .)" lua; do
        if pkg-config --exists "$candidate" && is_version "$candidate" "$version"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

if [ "$1" = list ]; then
    for name in $all; do
        if module "$name" >/dev/null; then
            echo "$name"
        else
            echo "skipped: no headers of $name on this machine. $(remedy "$name")" >&2
        fi
    done
    exit 0
fi

name=$1
case " $all " in
*" $name "*) ;;
*) echo "error: LUA=$name is not known: $all" >&2 && exit 1 ;;
esac
module=$(module "$name") || {
    echo "error: no headers of $name. $(remedy "$name")" >&2
    exit 1
}
case $2 in
cflags) pkg-config --cflags "$module" ;;
libs) pkg-config --libs "$module" ;;
cmod)
    own=$(pkg-config --variable=INSTALL_CMOD "$module")
    if [ -n "$own" ] && [ "$3" = "$(pkg-config --variable=prefix "$module")" ]; then
        echo "$own"
    else
        version=${name#lua}
        [ "$version" != jit ] || version=5.1
        echo "$3/lib/lua/$version"
    fi
    ;;
command)
    built=$(pkg-config --variable=program "$module") # of one that tools/lua55.sh has built
    if [ -n "$built" ]; then echo "$built"; else command -v "$name" || true; fi
    ;;
esac
