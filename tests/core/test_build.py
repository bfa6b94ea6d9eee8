"""The build: no warnings, what is installed and exported, what is said when a part is missing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from . import toolchain
from .core import SIGNATURES

WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wstrict-prototypes",
            "-Wmissing-prototypes", "-Werror"]
OPTIMISATIONS = {
    "O0": ["-O0"],
    "O2": ["-O2"],
    "O3": ["-O3"],
    "fortify": ["-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"],
    "no asserts": ["-O2", "-DNDEBUG"],
}
PUBLIC = ("zmalloc.h", "zaccount.h", "zsize.h", "zapi.h")
INTERNAL = ("zcore.h", "zmap.h", "zport.h")


def wants(cc: str) -> None:
    if not toolchain.compiler(cc):
        pytest.skip(f"no {cc} on this machine")


@pytest.mark.parametrize("mode", toolchain.MODES)
@pytest.mark.parametrize("flags", OPTIMISATIONS)
@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_the_core_compiles_without_a_warning(cc: str, flags: str, mode: str,
                                             tmp_path: Path) -> None:
    wants(cc)
    defines = ["-DNO_MALLOC_USABLE_SIZE"] if mode == "prefix" else []
    toolchain.must([cc, "-std=c11", *WARNINGS, *OPTIMISATIONS[flags], *defines,
                    f"-I{toolchain.CSRC}", "-c",
                    *(toolchain.CSRC / name for name in toolchain.SOURCES)], cwd=tmp_path)


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("header", PUBLIC + INTERNAL)
def test_a_header_can_be_included_alone(cc: str, header: str, tmp_path: Path) -> None:
    wants(cc)
    source = tmp_path / "alone.c"
    source.write_text(f'#include "{header}"\n#include "{header}"\n')
    toolchain.must([cc, "-std=c11", *WARNINGS, "-Wno-unused-function", f"-I{toolchain.CSRC}",
                    "-fsyntax-only", source])


PROGRAM = """
#include <zmalloc.h>
#include <zsize.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    char text[ZSIZE_TEXT];
    size_t size = 0;
    char *p = zstrdup("hello");
    zaccount *a = zaccount_new("a", NULL);
    struct zaccount_figures f;
    int fine = zaccount_set_limit(a, 100, 0) == 0 && !zaccount_charge(a, 101);
    zaccount_stats(a, &f);
    fine = fine && f.refusals == 1 && f.limit == 100 && zmalloc_used_memory() == zmalloc_size(p);
    fine = fine && zsize_parse("1 KiB", 5, 0, &size) == ZSIZE_OK && size == 1024;
    fine = fine && strcmp(zmalloc_version(), ZMALLOC_VERSION) == 0;
    printf("%s %s %s\\n", p, zmalloc_backend(), zsize_format(text, size));
    zfree(p);
    return !fine || zaccount_free(a) != 0 || zmalloc_used_memory() != 0;
}
"""


@pytest.mark.parametrize("standard", ["c++11", "c++20"])
@pytest.mark.parametrize("cc", ["g++", "clang++"])
def test_the_public_headers_are_cplusplus_too(cc: str, standard: str, tmp_path: Path) -> None:
    """Linked, so that a missing extern "C" shows."""
    wants(cc)
    source, program = tmp_path / "program.cc", tmp_path / "program"
    source.write_text(PROGRAM)
    toolchain.must([cc, f"-std={standard}", "-Wall", "-Wextra", "-Werror", f"-I{toolchain.CSRC}",
                    source, "-o", program, toolchain.static_library("usable"), "-pthread",
                    "-ldl"])
    assert toolchain.must([program]) == "hello libc 1.0 KiB\n"


def installed_files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("prefix", ["/usr", "/opt/z"])
def test_what_is_installed_builds_a_program_and_can_be_uninstalled(tmp_path: Path,
                                                                   prefix: str) -> None:
    root = tmp_path / "root"
    words = ["make", "-s", "OUT=build/test/install", "CFLAGS=-O1", f"DESTDIR={root}",
             f"PREFIX={prefix}"]
    with toolchain.building():
        toolchain.must([*words, "install"], env=toolchain.clean_environment())
    base = prefix[1:]
    assert installed_files(root) == {f"{base}/include/{name}" for name in PUBLIC} | {
        f"{base}/lib/{name}" for name in ("libzmalloc.a", "libzmalloc.so", "libzmalloc.so.0",
                                          "pkgconfig/zmalloc.pc")}
    assert str(root) not in (root / base / "lib/pkgconfig/zmalloc.pc").read_text()
    if shutil.which("pkg-config"):
        env = {**os.environ, "PKG_CONFIG_SYSROOT_DIR": str(root),
               "PKG_CONFIG_LIBDIR": str(root / base / "lib/pkgconfig"),
               "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": "1", "PKG_CONFIG_ALLOW_SYSTEM_LIBS": "1"}
        for static in (False, True):
            build_with_pkg_config(tmp_path, root / base, env, static)
    with toolchain.building():
        toolchain.must([*words, "uninstall"], env=toolchain.clean_environment())
    assert installed_files(root) == set()


def build_with_pkg_config(folder: Path, base: Path, env: dict[str, str], static: bool) -> None:
    asked = ["pkg-config", *(["--static"] if static else []), "--cflags", "--libs", "zmalloc"]
    flags = toolchain.must(asked, env=env).split()
    version = toolchain.must(["pkg-config", "--modversion", "zmalloc"], env=env).strip()
    assert f'ZMALLOC_VERSION "{version}"' in (base / "include/zmalloc.h").read_text()
    source, program = folder / "program.c", folder / f"program-{static}"
    source.write_text(PROGRAM)
    if static:
        flags = [f"-l:lib{flag[2:]}.a" if flag == "-lzmalloc" else flag for flag in flags]
    toolchain.must(["gcc", "-std=c11", source, "-o", program, *flags])
    needed = toolchain.must(["readelf", "-d", program])
    assert ("libzmalloc.so.0" in needed) == (not static)
    printed = toolchain.must([program], env={**os.environ, "LD_LIBRARY_PATH": str(base / "lib")})
    assert printed == "hello libc 1.0 KiB\n"


@pytest.mark.parametrize("mode", toolchain.MODES)
def test_the_shared_library_exports_the_public_functions_and_the_table(mode: str) -> None:
    path = toolchain.shared_library(mode)
    table = toolchain.must(["nm", "-D", "--defined-only", path])
    assert {line.split()[-1] for line in table.splitlines()} == {*SIGNATURES, "zmalloc_core_v1"}


def test_the_shared_library_needs_nothing_it_does_not_name(tmp_path: Path) -> None:
    """Linked with --no-undefined: a program need not guess what else to link."""
    objects = sorted((toolchain.shared_library("usable").parent).glob("*.pic.o"))
    assert len(objects) == len(toolchain.SOURCES)
    toolchain.must(["gcc", "-shared", "-Wl,--no-undefined", "-o", tmp_path / "l.so", *objects,
                    "-pthread", "-ldl"])


def test_the_static_library_puts_no_other_names_into_a_program() -> None:
    table = toolchain.must(["nm", "-g", "--defined-only", toolchain.static_library("usable")])
    names = {words[2] for words in map(str.split, table.splitlines()) if len(words) == 3}
    strangers = {name for name in names
                 if not re.match(r"z(try)?(m|c|re)?alloc|zaccount_|zcore_|zmap_|zport_|zsize_"
                                 r"|zmalloc_|zfree|zstrdup", name)}
    assert names >= set(SIGNATURES)
    assert strangers == set()


# ---- backends ----------------------------------------------------------------------------------

BACKENDS = {"jemalloc": ("jemalloc/jemalloc.h", "libjemalloc-dev"),
            "mimalloc": ("mimalloc.h", "libmimalloc-dev")}


@pytest.mark.parametrize("mode", toolchain.MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_counts_as_the_c_librarys_heap_does(backend: str, mode: str) -> None:
    header = BACKENDS[backend][0]
    if not any((Path(folder) / header).exists() for folder in ("/usr/include",
                                                               "/usr/local/include")):
        pytest.skip(f"no headers of {backend} on this machine")
    library = toolchain.make(f"{backend}-{mode}", "libzmalloc.a", f"BACKEND={backend}", mode=mode)
    libs = ["-pthread", "-ldl", f"-l{backend}"]
    family = toolchain.program("family.c", "family", library, "-O2", libs=libs)
    assert " 0 failed" in toolchain.must([family, "all", "0.1"])
    accounts = toolchain.program("accounts.c", "accounts", library, "-O2", libs=libs)
    assert " 0 failed" in toolchain.must([accounts, "caps", "0.1"])
    symbols = toolchain.must(["nm", "-u", library])
    assert {"jemalloc": "je_malloc", "mimalloc": "mi_malloc"}[backend] in symbols or \
        "malloc" in symbols
    source = library.parent / "program.c"
    source.write_text(PROGRAM)
    program = source.with_suffix("")
    toolchain.must(["gcc", "-std=c11", f"-I{toolchain.CSRC}", source, "-o", program, library,
                    *libs])
    assert toolchain.must([program]) == f"hello {backend} 1.0 KiB\n"
    assert backend in toolchain.must(["readelf", "-d", program])


def failing_make(*settings: str, env: dict[str, str] | None = None) -> list[str]:
    """What a build that has to fail says; make's own line about the error is left out."""
    out = toolchain.BUILD / "failing"
    shutil.rmtree(out, ignore_errors=True)
    with toolchain.building():
        done = toolchain.run(["make", "-s", "lib", "OUT=build/test/failing", *settings],
                             env=env or toolchain.clean_environment())
    assert done.returncode != 0
    assert not list(out.glob("*.o")), "it began to compile before it had looked"
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if not line.startswith("make: ***")]


def test_an_unknown_backend_is_one_line() -> None:
    lines = failing_make("BACKEND=nonsense")
    assert lines == ["error: BACKEND=nonsense is not known: libc, jemalloc or mimalloc"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_backend_is_one_line_that_names_its_package(backend: str,
                                                              tmp_path: Path) -> None:
    """As on a machine without it: pkg-config does not know it and linking it fails."""
    for name, body in (("pkg-config", "exit 1"),
                       ("cc", f'case "$*" in *-l{backend}*) exit 1;; esac; exec gcc "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {**toolchain.clean_environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    lines = failing_make(f"BACKEND={backend}", env=env)
    assert len(lines) == 1
    assert f"BACKEND={backend}" in lines[0]
    assert BACKENDS[backend][1] in lines[0]


def test_two_backends_and_modes_do_not_share_a_folder() -> None:
    """Otherwise objects of one would be linked into the other."""
    folders = set()
    for settings in (["BACKEND=libc"], ["BACKEND=libc", "MODE=prefix"], ["BACKEND=jemalloc"],
                     ["BACKEND=jemalloc", "MODE=prefix"], ["BACKEND=mimalloc"]):
        text = toolchain.run(["make", "-n", "-p", "lib", *settings],
                             env=toolchain.clean_environment()).stdout
        found = re.search(r"^lib: (\S+)/libzmalloc\.a", text, re.M)
        assert found
        folders.add(found[1])
    assert len(folders) == 5


def test_the_folder_of_the_checkout_may_have_blanks_in_its_name(tmp_path: Path) -> None:
    copy = tmp_path / "a folder with blanks"
    copy.mkdir()
    for name in ("csrc", "tools"):
        shutil.copytree(toolchain.ROOT / name, copy / name)
    shutil.copy(toolchain.ROOT / "Makefile", copy)
    toolchain.must(["make", "-s", "lib", "CFLAGS=-O0"], cwd=copy,
                   env=toolchain.clean_environment())
    assert (copy / "build/c/libc/libzmalloc.so").exists()
