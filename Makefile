# zmalloc. `make help` lists what there is to make.
#
# make only drives: the C library is built here, the extension by setuptools (setup.py), and what a
# target needs of the system is asked for by tools/need.sh before anything else happens.

PYTHON  ?= python3
CC      ?= cc
BACKEND ?= libc
PREFIX  ?= /usr/local
DESTDIR ?=
CFLAGS  ?= -O2 -g

VERSION := $(shell sed -n 's/^.define ZMALLOC_VERSION "\(.*\)"/\1/p' csrc/zmalloc.h)
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
PUBLIC  := zmalloc.h zaccount.h zsize.h zapi.h
SOURCES := zmalloc zaccount zcore zmap zport zsize

# Where the library is built. Each backend has its own folder; MODE=prefix builds the mode for
# platforms whose allocator cannot tell a block's size.
MODE    ?=
OUT     ?= build/c/$(BACKEND)$(if $(MODE),-$(MODE))

.PHONY: help demo test test-core test-python lint lib install uninstall wheel sdist bench clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1	/p' Makefile | expand -t 16
	@echo
	@echo "PYTHON=python3.12 picks the interpreter, BACKEND=libc|jemalloc|mimalloc what lies under the"
	@echo "C library, PREFIX= and DESTDIR= where 'make install' puts it."

# ---- the C library -------------------------------------------------------------------------

BACKEND_CFLAGS = $(shell tools/backend.sh $(BACKEND) cflags)
BACKEND_LIBS   = $(shell tools/backend.sh $(BACKEND) libs)
BACKEND_PC     = $(shell tools/backend.sh $(BACKEND) requires)
CORE_CFLAGS    = -std=c11 $(WARN) $(CFLAGS) $(BACKEND_CFLAGS) $(CPPFLAGS) -Icsrc \
                 $(if $(filter prefix,$(MODE)),-DNO_MALLOC_USABLE_SIZE)
STATIC_OBJECTS := $(SOURCES:%=$(OUT)/%.o)
SHARED_OBJECTS := $(SOURCES:%=$(OUT)/%.pic.o)

lib: $(OUT)/libzmalloc.a $(OUT)/libzmalloc.so $(OUT)/zmalloc.pc ## build libzmalloc.a, libzmalloc.so and zmalloc.pc

# The backend is looked for once, before the first file is compiled, so that a missing one is one line.
$(OUT)/.backend:
	@tools/backend.sh $(BACKEND) cflags >/dev/null
	@mkdir -p $(OUT) && touch $@

$(OUT)/%.o: csrc/%.c $(wildcard csrc/*.h) | $(OUT)/.backend
	$(CC) $(CORE_CFLAGS) -c $< -o $@

$(OUT)/%.pic.o: csrc/%.c $(wildcard csrc/*.h) | $(OUT)/.backend
	$(CC) $(CORE_CFLAGS) -fPIC -fvisibility=hidden -DZMALLOC_SHARED -c $< -o $@

$(OUT)/libzmalloc.a: $(STATIC_OBJECTS)
	$(AR) rcs $@ $^

$(OUT)/libzmalloc.so.0: $(SHARED_OBJECTS)
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,libzmalloc.so.0 -Wl,-Bsymbolic -o $@ $^ \
	    $(BACKEND_LIBS) -pthread -ldl

$(OUT)/libzmalloc.so: $(OUT)/libzmalloc.so.0
	ln -sf libzmalloc.so.0 $@

$(OUT)/zmalloc.pc: Makefile | $(OUT)/.backend
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' \
	    'Name: zmalloc' 'Description: malloc that keeps the total, and accounts with caps' \
	    'Version: $(VERSION)' 'Requires.private: $(BACKEND_PC)' \
	    'Libs: -L"$${libdir}" -lzmalloc' \
	    'Libs.private: $(if $(BACKEND_PC),,$(BACKEND_LIBS)) -pthread -ldl' \
	    'Cflags: -I"$${includedir}"' >$@

install: lib ## install the C library, its headers and zmalloc.pc (PREFIX=, DESTDIR=)
	install -d "$(DESTDIR)$(PREFIX)/lib/pkgconfig" "$(DESTDIR)$(PREFIX)/include"
	install -m 644 $(PUBLIC:%=csrc/%) "$(DESTDIR)$(PREFIX)/include"
	install -m 644 $(OUT)/libzmalloc.a "$(DESTDIR)$(PREFIX)/lib"
	install -m 755 $(OUT)/libzmalloc.so.0 "$(DESTDIR)$(PREFIX)/lib"
	ln -sf libzmalloc.so.0 "$(DESTDIR)$(PREFIX)/lib/libzmalloc.so"
	sed 's|^prefix=.*|prefix=$(PREFIX)|' $(OUT)/zmalloc.pc >"$(DESTDIR)$(PREFIX)/lib/pkgconfig/zmalloc.pc"

uninstall: ## take out what install put there
	rm -f $(PUBLIC:%="$(DESTDIR)$(PREFIX)/include/%") "$(DESTDIR)$(PREFIX)/lib/libzmalloc.a" \
	    "$(DESTDIR)$(PREFIX)/lib/libzmalloc.so" "$(DESTDIR)$(PREFIX)/lib/libzmalloc.so.0" \
	    "$(DESTDIR)$(PREFIX)/lib/pkgconfig/zmalloc.pc"

# ---- Python --------------------------------------------------------------------------------

.PHONY: .need-python .need-test
VENV := .venv

# Nothing of the caller's environment may change what is built and tested.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV ZMALLOC_LIMIT ZMALLOC_NO_INSTALL PYTHONMALLOC
export PYTHON CC

.need-python:
	@tools/need.sh c python
.need-test:
	@tools/need.sh c python test

demo: .need-python ## run a runaway script under a cap, and go on
	@tools/venv.sh $(PYTHON) $(VENV)
	@echo "--- a Python program runs examples/runaway.py under 64 MiB: it is stopped, the program goes on"
	@$(VENV)/bin/python examples/host.py examples/runaway.py "64 MiB"
	@echo
	@echo "--- the same from the command line: python -m zmalloc run --limit 64MiB examples/runaway.py"
	@$(VENV)/bin/python -m zmalloc run --limit 64MiB examples/runaway.py; status=$$?; \
	    echo "exit status $$status"; test $$status = 53

test: .need-test ## set up and run all tests, on every Python from 3.10 to 3.13 that the machine has
	@$(MAKE) --no-print-directory test-core
	@$(MAKE) --no-print-directory test-python
	@$(MAKE) --no-print-directory lint

test-core: .need-test ## the tests of the C core
	@echo "=== the C core"
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(VENV)/bin/python -m pytest -q tests/core

test-python: .need-test ## the tests of the extension, on each Python
	@set -e; for python in $$(tools/pythons.sh); do \
	    venv=build/venv/$$(echo $$python | tr / _); \
	    echo "=== $$($$python --version) ($$python)"; \
	    tools/venv.sh $$python $$venv test; \
	    $$venv/bin/python -m pytest -q tests/python; \
	done

lint: .need-python ## ruff and mypy --strict
	@tools/venv.sh $(PYTHON) build/venv/lint lint
	@build/venv/lint/bin/ruff check .
	@build/venv/lint/bin/mypy -p zmalloc

sdist: .need-python ## build the source distribution
	@$(MAKE) --no-print-directory .build KIND=--sdist

wheel: .need-python ## build a wheel for $(PYTHON)
	@$(MAKE) --no-print-directory .build KIND=--wheel

.PHONY: .build
.build:
	@test -x build/venv/build/bin/pyproject-build || { $(PYTHON) -m venv build/venv/build && \
	    build/venv/build/bin/pip install -q --disable-pip-version-check build; }
	@build/venv/build/bin/pyproject-build $(KIND) --outdir dist . >build/dist.log 2>&1 || \
	    { cat build/dist.log; exit 1; }
	@rm -rf build/lib.* build/temp.* build/bdist.* build/lib zmalloc.egg-info
	@ls dist

bench: .need-python ## stock Python, a pass-through hook, zmalloc and tracemalloc side by side
	@tools/venv.sh $(PYTHON) $(VENV)
	@$(VENV)/bin/python bench/bench.py

clean: ## remove everything that was built
	rm -rf build dist .venv *.egg-info
