#!/bin/sh
# Prints the interpreters to test with, one a line: $PYTHON first, then the system's own, then one of
# each supported version that the machine has. With arguments, versions such as 3.12: one of each of those
# alone. A version that is missing is named on stderr. NEEDS=NAME leaves out those that have no such module.
set -eu

PYTHON=${PYTHON:-python3}
real() { "$1" -c 'import os, sys; print(os.path.realpath(sys.executable))' 2>/dev/null; }
find_version() { # on PATH, or installed by pyenv
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        path=$(real "$candidate") && "$path" -c "import sys${NEEDS:+, $NEEDS}
sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null && { echo "$path"; return; }
    done
    return 1
}

if [ $# -gt 0 ]; then
    for version; do
        find_version "$version" || echo "skipped: no Python $version${NEEDS:+ with $NEEDS} on this machine" >&2
    done
    exit 0
fi

seen=
show() {
    case " $seen " in *" $1 "*) return ;; esac
    seen="$seen $1"
    echo "$1"
}

show "$(real "$PYTHON" || { echo "error: PYTHON=$PYTHON does not run" >&2; exit 1; })"
if [ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import sys, ensurepip
sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    show "$(real /usr/bin/python3)"
fi
for version in 3.10 3.11 3.12 3.13; do
    if path=$(find_version $version); then
        case " $(for p in $seen; do "$p" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; done | tr '\n' ' ') " in
        *" $version "*) ;;
        *) show "$path" ;;
        esac
    else
        echo "skipped: no Python $version on this machine" >&2
    fi
done
