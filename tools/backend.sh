#!/bin/sh
# Prints the flags for an allocator backend: tools/backend.sh NAME (cflags|libs|requires)
# NAME is libc, jemalloc or mimalloc. Found by pkg-config, or by a link test where the package ships
# no .pc file. A missing one is an error that names the package. "requires" is the .pc module's name,
# empty if there is none.
set -eu
name=$1 want=$2

fail() { echo "error: $*" >&2; exit 1; }

case $name in
libc) exit 0 ;;
jemalloc) header=jemalloc/jemalloc.h call='mallocx(1, 0)' package=libjemalloc-dev ;;
mimalloc) header=mimalloc.h call='mi_malloc(1)' package=libmimalloc-dev ;;
*) fail "BACKEND=$name is not known: libc, jemalloc or mimalloc" ;;
esac
macro=-DZMALLOC_USE_$(echo "$name" | tr '[:lower:]' '[:upper:]')

if command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "$name"; then
    case $want in
    cflags) echo "$macro $(pkg-config --cflags "$name")" ;;
    libs) pkg-config --libs "$name" ;;
    requires) echo "$name" ;;
    esac
    exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf '#include <stddef.h>\n#include <%s>\nint main(void) { return %s == NULL; }\n' \
    "$header" "$call" >"$scratch/try.c"
${CC:-cc} "$scratch/try.c" -o "$scratch/try" "-l$name" 2>/dev/null ||
    fail "BACKEND=$name: not found. On Debian and Ubuntu: apt-get install $package"
case $want in
cflags) echo "$macro" ;;
libs) echo "-l$name" ;;
esac
