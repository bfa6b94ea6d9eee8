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
SOURCES := zmalloc zaccount zmarks zsized zcore zmap zport zsize

# Where the library is built. Each backend has its own folder; MODE=prefix builds the mode for
# platforms whose allocator cannot tell a block's size.
MODE    ?=
OUT     ?= build/c/$(BACKEND)$(if $(MODE),-$(MODE))

.PHONY: help demo test test-core test-python test-plugin test-plugin-all test-suites bench-pytest \
        test-neighbours clean-errors test-lua test-lua55 lint lib lua lua-all install install-lua \
        uninstall uninstall-lua wheel sdist bench bench-full bench-modes bench-lua bench-core \
        bench-growth cpython-tests test-faults test-escapes clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1	/p' Makefile | expand -t 16
	@echo
	@echo "PYTHON=python3.12 and LUA=lua5.1|lua5.2|lua5.3|lua5.4|luajit pick the interpreter,"
	@echo "BACKEND=libc|jemalloc|mimalloc what lies under the C library, PREFIX= and DESTDIR= where"
	@echo "'make install' puts it."

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

# ---- Lua -------------------------------------------------------------------------------------

# For each Lua: the module for scripts, the runner, and an archive for hosts, which has the core in it. All
# are made of the same objects, which export nothing but the table by which copies of the core find each
# other, and the module's entry.
LUA         ?= lua5.4
LUA_OUT      = build/$(LUA)
LUA_SOURCES := zmalloc_lua zmalloc_lua_state zpace lzmalloc
ZLUA_SOURCES := zlua zlua_options zlua_report zlua_trace
ZLUA         = build/$(if $(filter-out lua5.4,$(LUA)),$(LUA)/)zlua
ZLUA_NAME    = zlua$(if $(filter-out lua5.4,$(LUA)),$(LUA:lua%=%))
LUA_CFLAGS   = $(shell tools/lua.sh $(LUA) cflags)
LUA_LIBS     = $(shell tools/lua.sh $(LUA) libs)
INSTALL_CMOD = $(shell tools/lua.sh $(LUA) cmod $(PREFIX))
LUA_OBJECTS  = $(SOURCES:%=$(LUA_OUT)/obj/%.o) $(LUA_SOURCES:%=$(LUA_OUT)/obj/%.o)
LUA_COMPILE  = $(CC) -std=c11 $(WARN) $(CFLAGS) $(CPPFLAGS) $(LUA_CFLAGS) -Icsrc -Ilua -fPIC
LUA_HEADERS := $(wildcard csrc/*.h lua/*.h)

lua: .need-lua ## build build/lua5.4/zmalloc.so and build/zlua (or for LUA=...)
	@tools/lua.sh $(LUA) cflags >/dev/null
	@$(MAKE) --no-print-directory $(LUA_OUT)/zmalloc.so $(LUA_OUT)/libzmalloc-$(LUA).a $(ZLUA)

lua-all: .need-lua ## the same for each Lua that the machine has
	@set -e; for lua in $$(tools/lua.sh list); do \
	    echo "=== $$lua"; $(MAKE) --no-print-directory lua LUA=$$lua; \
	done

$(LUA_OUT)/obj/%.o: csrc/%.c $(LUA_HEADERS)
	@mkdir -p $(@D)
	$(LUA_COMPILE) -fvisibility=hidden -c $< -o $@

$(LUA_OUT)/obj/%.o: lua/%.c $(LUA_HEADERS)
	@mkdir -p $(@D)
	$(LUA_COMPILE) $(if $(filter lzmalloc,$*),,-fvisibility=hidden) -c $< -o $@

# Never linked with liblua: its functions are those of the program that loads it.
$(LUA_OUT)/zmalloc.so: $(LUA_OBJECTS)
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -o $@ $^ -pthread -ldl -lm

$(LUA_OUT)/libzmalloc-$(LUA).a: $(filter-out %/lzmalloc.o,$(LUA_OBJECTS))
	rm -f $@ && $(AR) rcs $@ $^

$(ZLUA): $(LUA_OBJECTS) $(ZLUA_SOURCES:%=$(LUA_OUT)/obj/%.o)
	$(CC) $(CFLAGS) $(LDFLAGS) -Wl,-E -o $@ $^ $(LUA_LIBS) -pthread -ldl -lm

$(LUA_OUT)/zmalloc-$(LUA).pc: Makefile
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' \
	    'Name: zmalloc-$(LUA)' 'Description: states of $(LUA) whose every byte is counted, under a cap' \
	    'Version: $(VERSION)' 'Libs: -L"$${libdir}" -lzmalloc-$(LUA) -pthread -ldl' \
	    'Cflags: -I"$${includedir}"' >$@

install-lua: lua install $(LUA_OUT)/zmalloc-$(LUA).pc ## install the module, zlua and what hosts need, and the C library
	install -d "$(DESTDIR)$(INSTALL_CMOD)" "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(LUA_OUT)/zmalloc.so "$(DESTDIR)$(INSTALL_CMOD)"
	install -m 755 $(ZLUA) "$(DESTDIR)$(PREFIX)/bin/$(ZLUA_NAME)"
	install -m 644 lua/zmalloc_lua.h "$(DESTDIR)$(PREFIX)/include"
	install -m 644 $(LUA_OUT)/libzmalloc-$(LUA).a "$(DESTDIR)$(PREFIX)/lib"
	sed 's|^prefix=.*|prefix=$(PREFIX)|' $(LUA_OUT)/zmalloc-$(LUA).pc \
	    >"$(DESTDIR)$(PREFIX)/lib/pkgconfig/zmalloc-$(LUA).pc"

uninstall-lua: ## take out what install-lua put there, but for the C library
	rm -f "$(DESTDIR)$(INSTALL_CMOD)/zmalloc.so" "$(DESTDIR)$(PREFIX)/bin/$(ZLUA_NAME)" \
	    "$(DESTDIR)$(PREFIX)/include/zmalloc_lua.h" "$(DESTDIR)$(PREFIX)/lib/libzmalloc-$(LUA).a" \
	    "$(DESTDIR)$(PREFIX)/lib/pkgconfig/zmalloc-$(LUA).pc"

# ---- Python --------------------------------------------------------------------------------

.PHONY: .need-python .need-lua .need-test
VENV := .venv
# Tests run side by side, as most of them wait for a process of their own.
JOBS ?= -n 2 --dist worksteal

# Nothing of the caller's environment may change what is built and tested.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV ZMALLOC_LIMIT ZMALLOC_NO_INSTALL PYTHONMALLOC
unexport LUA_PATH LUA_CPATH LUA_INIT LUA_PATH_5_4 LUA_CPATH_5_4 LUA_INIT_5_4
export PYTHON CC LUA

.need-python:
	@tools/need.sh c python
.need-lua:
	@tools/need.sh c lua
.need-test:
	@tools/need.sh c python lua test

demo: .need-python .need-lua ## run a runaway script under a cap, and go on: in Python, in Lua
	@tools/venv.sh $(PYTHON) $(VENV)
	@echo "--- a Python program runs examples/runaway.py under 64 MiB: it is stopped, the program goes on"
	@$(VENV)/bin/python examples/host.py examples/runaway.py "64 MiB"
	@echo
	@echo "--- the same from the command line: python -m zmalloc run --limit 64MiB examples/runaway.py"
	@$(VENV)/bin/python -m zmalloc run --limit 64MiB examples/runaway.py; status=$$?; \
	    echo "exit status $$status"; test $$status = 53
	@$(MAKE) --no-print-directory -s lua
	@echo
	@echo "--- a Lua program runs examples/runaway.lua under 8 MiB: it is stopped, the program goes on"
	@LUA_CPATH="build/$(LUA)/?.so" $$(tools/lua.sh $(LUA) command) examples/host.lua examples/runaway.lua "8 MiB"
	@echo
	@echo "--- the same from the command line: $(ZLUA) --limit 8MiB examples/runaway.lua"
	@$(ZLUA) --limit 8MiB examples/runaway.lua; status=$$?; \
	    echo "exit status $$status"; test $$status = 53

test: .need-test ## set up and run all tests, on every Python from 3.10 to 3.13 that the machine has
	@$(MAKE) --no-print-directory test-core
	@$(MAKE) --no-print-directory test-python
	@$(MAKE) --no-print-directory test-plugin
	@$(MAKE) --no-print-directory test-lua
	@$(MAKE) --no-print-directory test-lua55
	@$(MAKE) --no-print-directory test-together
	@$(MAKE) --no-print-directory lint

test-core: .need-test ## the tests of the C core, and the fuzz targets on a few streams
	@echo "=== the C core"
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(VENV)/bin/python -m pytest -q $(JOBS) tests/core tests/fuzz

# The environments are made two at a time. The first of them has numpy, pandas, IPython and memray, too.
test-python: .need-test ## the tests of the extension, on each Python
	@tools/pythons.sh | xargs -P 2 -I {} sh -c 'tools/venv.sh "$$1" "build/venv/$$(echo "$$1" | tr / _)" test' sh {}
	@set -e; first=yes; for python in $$(tools/pythons.sh); do \
	    venv=build/venv/$$(echo $$python | tr / _); \
	    echo "=== $$($$python --version) ($$python)"; \
	    test -z "$$first" || tools/neighbours.sh $$venv; first=; \
	    $$venv/bin/python -m pytest -q $(JOBS) tests/python; \
	done

# pytest-memray is no dependency of ours: where there is one for the Python, both have to work.
PLUGIN_TESTS = tools/plugin_tests.sh
test-plugin: .need-test ## the tests of the pytest plugin
	@$(PLUGIN_TESTS) $(PYTHON) $(VENV) $(JOBS)

PYTESTS := 7.4 8.3
test-plugin-all: .need-test ## the same on each Python, and with older releases of pytest
	@set -e; for python in $$(tools/pythons.sh); do \
	    $(PLUGIN_TESTS) $$python build/venv/$$(echo $$python | tr / _) $(JOBS); \
	done; \
	for pytest in $(PYTESTS); do \
	    PYTEST=$$pytest $(PLUGIN_TESTS) $(PYTHON) build/venv/pytest$$pytest $(JOBS); \
	done

test-suites: .need-python ## test suites of real projects with the plugin and without: the same results?
	@tools/venv.sh $(PYTHON) build/venv/suites test
	@build/venv/suites/bin/python tools/suites.py build/venv/suites/bin/python

# Each part runs, also after one has failed. ONLY='--only REGEX' and CAPS='--common N ...' make it shorter.
CLEAN_ERRORS = $(VENV)/bin/python tests/python/clean_errors
ONLY ?=
CAPS ?=
clean-errors: .need-test ## the acceptance harness of memory errors, all of it, on each Python: an hour or more
	@tools/venv.sh $(PYTHON) $(VENV) test
	@set -e; options=; for python in $$(tools/pythons.sh); do \
	    venv=build/venv/$$(echo $$python | tr / _); \
	    tools/venv.sh $$python $$venv test; \
	    options="$$options --python $$venv/bin/python"; \
	done; \
	status=0; try() { echo "=== $$*"; $(CLEAN_ERRORS) "$$@" $$options || status=1; }; \
	try run $(CAPS) $(ONLY); \
	try run --mode held --common 0 --worker 1 --budget 1 $(ONLY); \
	try matrix --times 5 $(ONLY); \
	try matrix --tracer ctrace $(ONLY); \
	try matrix --off repair $(ONLY); \
	try matrix --mode held $(ONLY); \
	try checks $(ONLY); \
	try run --common 3 --large 0 --worker 0 --off nothing --off reserve --off debt --off close --off repair $(ONLY); \
	exit $$status

# CPYTHON_TESTS='--mode held --only REGEX --processes 1' and their like: see its --help.
CPYTHONS ?= 3.11 3.13
CPYTHON_TESTS ?=
cpython-tests: .need-test ## CPython's own tests, 3.11's and 3.13's, stock and with zmalloc: the same? 40 minutes each
	@tools/venv.sh $(PYTHON) $(VENV) test
	@set -e; options=; for python in $$(NEEDS=test.test_list tools/pythons.sh $(CPYTHONS)); do \
	    venv=build/venv/$$(echo $$python | tr / _); \
	    tools/venv.sh $$python $$venv test; \
	    options="$$options --python $$venv/bin/python"; \
	done; \
	$(VENV)/bin/python tests/python/cpython_tests $$options $(CPYTHON_TESTS)

test-faults: .need-test ## each public entry with each of its requests refused, on each Python and Lua: build/reliability/faults.json
	@$(MAKE) --no-print-directory -s lua-all
	@set -e; pythons=; for python in $$(tools/pythons.sh); do \
	    venv=build/venv/$$(echo $$python | tr / _); \
	    tools/venv.sh $$python $$venv test; \
	    pythons="$$pythons $$venv/bin/python"; \
	done; \
	tools/faults.sh build/reliability $$pythons

test-escapes: .need-test ## every attempt at getting past a cap, in both modes and without one, on each Python, and each Lua
	@set -e; for python in $$(tools/pythons.sh); do \
	    venv=build/venv/$$(echo $$python | tr / _); \
	    echo "=== $$($$python --version) ($$python)"; \
	    tools/venv.sh $$python $$venv test; \
	    ZMALLOC_TEST_ESCAPES=all $$venv/bin/python -m pytest -q $(JOBS) tests/python/test_escapes.py; \
	done
	@tools/venv.sh $(PYTHON) $(VENV) test
	@ZMALLOC_TEST_ESCAPES=all $(VENV)/bin/python -m pytest -q $(JOBS) tests/lua/test_escapes.py

NUMPYS := 1.22 1.26 2.2 newest
test-neighbours: .need-test ## numpy (old and new), pandas, memray, IPython and a Jupyter kernel, on each Python
	@set -e; for python in $$(tools/pythons.sh); do \
	    venv=build/venv/neighbours$$(echo $$python | tr / _); \
	    tools/venv.sh $$python $$venv test; \
	    for numpy in $(NUMPYS); do \
	        tools/neighbours.sh $$venv $$numpy ipykernel || { test $$? = 3 && continue; exit 1; }; \
	        echo "=== $$($$python --version), $$($$venv/bin/python -m pip list 2>/dev/null | \
	            grep -E '^(numpy|pandas|ipython) ' | tr -s ' \n' ' ')"; \
	        $$venv/bin/python -m pytest -q $(JOBS) tests/python/test_numpy.py tests/python/test_jupyter.py; \
	    done; \
	    $$venv/bin/python -m pytest -q $(JOBS) tests/python/test_memray.py; \
	done

test-lua: .need-test ## the tests of Lua: C hosts, zlua and the module, on each Lua
	@echo "=== Lua"
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(MAKE) --no-print-directory -s lua-all
	@$(VENV)/bin/python -m pytest -q $(JOBS) tests/lua
	@tools/test_lua.sh $$(tools/lua.sh list 2>/dev/null)

# What pkg-config finds there is one more Lua to build against.
LUA55 := build/lua5.5/lua
test-lua55: .need-test ## the same on Lua 5.5, built from sources that pip downloads
	@echo "=== Lua 5.5"
	@tools/venv.sh $(PYTHON) $(VENV) test
	@if tools/lua55.sh $(LUA55); then \
	    export PKG_CONFIG_PATH="$(CURDIR)/$(LUA55)" && \
	    $(MAKE) --no-print-directory -s lua LUA=lua5.5 && \
	    $(VENV)/bin/python -m pytest -q $(JOBS) tests/lua -k lua5.5 && tools/test_lua.sh lua5.5; \
	else \
	    test $$? = 3; \
	fi

# What is too long for make test. Each writes what it has counted to build/reliability/NAME.json.
.PHONY: sanitize check-static test-builds mutants coverage reliability .need-checkers
.need-checkers:
	@tools/need.sh c python lua test fuzz checkers
CHECKERS = PYTHONPATH=tests $(VENV)/bin/python -m checkers

# PARTS="core lua python valgrind" chooses among them.
PARTS ?=
SANITIZED = build/venv/sanitized/$(subst /,_,$(PYTHON))
sanitize: .need-checkers ## ASan, UBSan, TSan and valgrind over the core, Lua and the extension: half an hour
	@tools/venv.sh $(PYTHON) $(VENV) test
	@ZMALLOC_BUILD=sanitize tools/venv.sh $(PYTHON) $(SANITIZED) test
	@$(CHECKERS).sanitize $(VENV)/bin/python $(SANITIZED)/bin/python $(PARTS)

check-static: .need-checkers ## clang-tidy, cppcheck and gcc -fanalyzer over all C: 5 minutes
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(CHECKERS).static

test-builds: .need-checkers ## the core's C programs by 20 builds: gcc, clang, musl, 32 bits, -O0 to LTO: 5 minutes
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(CHECKERS).builds

mutants: .need-test ## the code broken on purpose, one way after the other: a quick test has to turn red each time: 10 minutes
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(CHECKERS).mutants

reliability: .need-test ## docs/reliability.md, from what these targets have counted here
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(CHECKERS).reliability

# The inputs that are worth keeping stay in build/fuzz/ for the next time.
.PHONY: fuzz .need-fuzz
.need-fuzz:
	@tools/need.sh c python lua test fuzz
FUZZ_SECONDS ?= 600
FUZZ_VENV = build/venv/fuzz/$(subst /,_,$(PYTHON))
fuzz: .need-fuzz ## libFuzzer on sizes, map and accounts, atheris on the Python API: FUZZ_SECONDS=600
	@tools/venv.sh $(PYTHON) $(VENV) test
	@tools/venv.sh $(PYTHON) $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install -q --disable-pip-version-check --only-binary=:all: atheris \
	    >/dev/null 2>&1 || true
	@PYTHONPATH=tests $(VENV)/bin/python -m fuzz.fuzz $(FUZZ_SECONDS) $(FUZZ_VENV)/bin/python

# PARTS="--only lua --only core" counts those anew, beside what has been counted before.
COVERED ?= 3.11 3.13
coverage: .need-test ## lines and branches that the tests reach, in C by gcov and in Python: 40 minutes
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(CHECKERS).coverage --jobs="$(JOBS)" $(PARTS) $$(tools/pythons.sh $(COVERED))

lint: .need-python ## ruff and mypy --strict; luacheck where there is one
	@tools/venv.sh $(PYTHON) build/venv/lint lint
	@build/venv/lint/bin/ruff check .
	@build/venv/lint/bin/mypy -p zmalloc
	@if command -v luacheck >/dev/null; then luacheck -q .; else echo "skipped: no luacheck" >&2; fi

# ---- both languages in one process -----------------------------------------------------------

.PHONY: example-host test-together soak
HOST_OUT ?= build/example-host/$(subst /,_,$(PYTHON))
HOST_C   := $(SOURCES:%=csrc/%.c) $(wildcard zmalloc_py/_core/*.c lua/*.c)
HOST_C   := $(filter-out lua/zlua%,$(HOST_C)) examples/host.c
HOST_H   := $(wildcard csrc/*.h zmalloc_py/_core/*.h lua/*.h)
LUA54_PC  = $(shell for pc in lua5.4 lua-5.4 lua54; do pkg-config --exists $$pc && echo $$pc && break; done)

example-host: .need-python .need-lua $(HOST_OUT)/host ## build and run examples/host.c: C, Python and Lua, one tree of accounts
	@tools/venv.sh $(PYTHON) $(VENV)
	@$(HOST_OUT)/host $(VENV)/bin/python

$(HOST_OUT)/host: $(HOST_C) $(HOST_H) tools/embed.sh
	@mkdir -p $(HOST_OUT)
	@tools/embed.sh $(PYTHON) libs >$(HOST_OUT)/libs
	$(CC) -std=c11 -Wall -Wextra $(CFLAGS) $(CPPFLAGS) $(shell tools/embed.sh $(PYTHON) cflags) \
	    $(shell pkg-config --cflags $(LUA54_PC)) -Icsrc -Izmalloc_py/_core -Ilua $(HOST_C) -o $@ \
	    -rdynamic $$(cat $(HOST_OUT)/libs) $(shell pkg-config --libs $(LUA54_PC)) $(LDFLAGS) -pthread -ldl -lm

test-together: .need-test ## the tests of Python and Lua in one process, on the first and the last Python
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(VENV)/bin/python -m pytest -q $(JOBS) tests/together
	@set -e; for python in $$(tools/pythons.sh | tail -n +2 | tail -n 1); do \
	    venv=build/venv/$$(echo $$python | tr / _); \
	    echo "=== $$($$python --version) ($$python)"; \
	    tools/venv.sh $$python $$venv test; \
	    $$venv/bin/python -m pytest -q $(JOBS) tests/together/test_allocator.py tests/together/test_examples.py; \
	done

SOAK_SECONDS ?= 3600
soak: .need-test ## an hour (SOAK_SECONDS=3600) of threads, forks, moving caps, interrupts, refusals and kills
	@tools/venv.sh $(PYTHON) $(VENV) test
	@$(VENV)/bin/python tests/together/soak.py run $(SOAK_SECONDS) --json build/reliability/soak.json

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

BENCH_VENV = build/venv/bench$$(echo $$python | tr / _)

bench: .need-python ## stock Python, a pass-through hook, zmalloc and its peers side by side: some minutes
	@set -e; python=$(PYTHON); tools/venv.sh $$python $(BENCH_VENV) bench; $(BENCH_VENV)/bin/python bench/bench.py quick
	@$(MAKE) --no-print-directory bench-lua

# Of each part what this commit has not measured yet.
bench-full: .need-test ## all of it, on CPython 3.11 and 3.13, with Lua, the core and growth: hours; goes on where it was; docs/benchmarks.md
	@set -e; for python in $$(tools/pythons.sh 3.11 3.13); do \
	    tools/venv.sh $$python $(BENCH_VENV) bench; run=$(BENCH_VENV)/bin/python; $$run bench/bench.py full; \
	    kept=$$($$run bench/results.py); \
	    version=$$($$run -c 'import platform; print(platform.python_version())'); \
	    test -f $$kept/start-$$version.json || $$run bench/start_cost.py; \
	    test -f $$kept/instructions-$$version.json || $$run bench/modes.py cost; \
	done; test -n "$$run"; \
	for part in lua core growth; do \
	    test -f $$kept/$$part.json || $(MAKE) --no-print-directory bench-$$part; \
	done; $$run bench/page.py

bench-modes: .need-python ## what the modes exact and held cost in instructions, and resident memory under a cap
	@$(VENV)/bin/python bench/modes.py

bench-pytest: .need-python ## what the pytest plugin costs 1,000 small tests, beside pytest-memray
	@tools/venv.sh $(PYTHON) build/venv/suites test
	@build/venv/suites/bin/python -m pip install -q --disable-pip-version-check --only-binary=memray pytest-memray || \
	    echo "skipped: no pytest-memray for $$($(PYTHON) --version)" >&2
	@build/venv/suites/bin/python bench/pytest_cost.py

# ROUNDS=n for more than a few minutes of these three. What they can do without is named and left out.
BENCH = @set -e; python=$(PYTHON); tools/venv.sh $$python $(BENCH_VENV) bench; $(BENCH_VENV)/bin/python

bench-lua: .need-python .need-lua ## the stock allocator, ours, jemalloc and mimalloc in Lua 5.4 and LuaJIT: time, memory, instructions
	$(BENCH) bench/lua_bench.py

bench-core: .need-python ## the C core: ns for a block taken and given back, by size, threads and backend
	$(BENCH) bench/core_bench.py

bench-growth: .need-python ## what more live blocks, accounts, scopes and threads cost an operation, in C and in Python
	$(BENCH) bench/growth.py

clean: ## remove everything that was built
	rm -rf build dist .venv *.egg-info
