#!/bin/sh
# Prints what a C program needs to have a Python inside: tools/embed.sh PYTHON (cflags|libs)
set -eu

"$1" - "$2" <<'SCRIPT'
import os
import sys
import sysconfig

get = sysconfig.get_config_var
include, folder = sysconfig.get_paths()["include"], get("LIBDIR")
version = get("LDVERSION") or sysconfig.get_python_version()
if not os.path.exists(os.path.join(include, "Python.h")):
    sys.exit(f"error: {sys.executable} has no Python.h. On Debian and Ubuntu: "
             f"apt-get install libpython{sysconfig.get_python_version()}-dev")
if sys.argv[1] == "cflags":
    print(f"-isystem {include}")
elif os.path.exists(os.path.join(folder, f"libpython{version}.so")):
    print(f"-L{folder} -Wl,-rpath,{folder} -lpython{version}")
elif os.path.exists(os.path.join(get("LIBPL"), f"libpython{version}.a")):
    print(f"{get('LIBPL')}/libpython{version}.a {get('LIBS')} {get('SYSLIBS')} -Wl,--export-dynamic")
else:
    sys.exit(f"error: {sys.executable} has no libpython{version} to link with. On Debian and Ubuntu: "
             f"apt-get install libpython{sysconfig.get_python_version()}-dev")
SCRIPT
