"""Declares the extension module; all metadata is in pyproject.toml.

ZMALLOC_BUILD picks a special build: "debug" (-O0 and assertions), "sanitize" (address and
undefined behaviour), "coverage".
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

BUILDS = {
    "": ["-O2", "-DNDEBUG"],
    "debug": ["-O0", "-UNDEBUG"],
    "sanitize": ["-O1", "-UNDEBUG", "-fsanitize=address,undefined", "-fno-sanitize-recover"],
    "coverage": ["-O0", "-DNDEBUG", "--coverage", "-fprofile-update=atomic"],
}

build = os.environ.get("ZMALLOC_BUILD", "")
if build not in BUILDS:
    sys.exit(f"ZMALLOC_BUILD={build!r} is not known: one of {', '.join(filter(None, BUILDS))}")

# What other extension modules need: installed as zmalloc/include.
HEADERS = [
    "csrc/zaccount.h",
    "csrc/zapi.h",
    "zmalloc_py/_core/zmalloc_capi.h",
    "zmalloc_py/_core/zmalloc_embed.h",
]


class BuildWithHeaders(build_py):
    def run(self):
        super().run()
        folder = Path(self.build_lib, "zmalloc", "include")
        self.mkpath(str(folder))
        for header in HEADERS:
            self.copy_file(header, str(folder / Path(header).name))


# TLS descriptors: a thread's record is found without a call into the loader, and without taking a
# place in the static block that a library loaded at run time may not get. aarch64 has them anyway.
TLS_DESCRIPTORS = "-mtls-dialect=gnu2"


class BuildWithFlags(build_ext):
    def build_extensions(self):
        if sys.platform == "linux" and self.accepts(TLS_DESCRIPTORS):
            for extension in self.extensions:
                extension.extra_compile_args.append(TLS_DESCRIPTORS)
        super().build_extensions()

    def accepts(self, flag):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "flag.c")
            source.write_text("_Thread_local int x;\nint *f(void) { return &x; }\n")
            command = [*self.compiler.compiler_so, flag, "-c", str(source), "-o", f"{source}.o"]
            return subprocess.run(command, capture_output=True).returncode == 0


CORE = ["zmalloc", "zaccount", "zmarks", "zsized", "zcore", "zmap", "zport", "zsize"]
FRONT = [
    "accounts",
    "arenas",
    "arrays",
    "asks",
    "budgets",
    "callers",
    "caps",
    "delivery",
    "embed",
    "fail_after",
    "faults",
    "figures",
    "frames",
    "gauges",
    "hooks",
    "install",
    "limit_error",
    "machinery",
    "modes",
    "module",
    "relief",
    "repair",
    "runner",
    "scopes",
    "sizes",
    "threads",
    "tied",
    "verdict",
    "where",
    "with",
    "zone",
]

if sys.platform == "win32":
    flags, links = ["/std:c11", "/experimental:c11atomics"], ["psapi.lib"]
else:
    flags = ["-std=c11", "-g", "-fvisibility=hidden", "-Wall", "-Wextra", *BUILDS[build]]
    links = [flag for flag in BUILDS[build] if flag.startswith(("-fsanitize", "--cov"))]

setup(
    cmdclass={"build_ext": BuildWithFlags, "build_py": BuildWithHeaders},
    ext_modules=[
        Extension(
            "zmalloc._core",
            sources=[f"csrc/{name}.c" for name in CORE]
            + [f"zmalloc_py/_core/{name}.c" for name in FRONT],
            depends=[
                str(path)
                for folder in ("csrc", "zmalloc_py/_core")
                for path in Path(folder).glob("*.h")
            ],
            include_dirs=["csrc", "zmalloc_py/_core"],
            extra_compile_args=flags,
            extra_link_args=links,
        )
    ]
)
