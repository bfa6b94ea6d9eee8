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

.PHONY: help demo test test-core test-python lib install uninstall wheel sdist bench lint \
        check-style clean
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
	    'Libs: -L$${libdir} -lzmalloc' \
	    'Libs.private: $(if $(BACKEND_PC),,$(BACKEND_LIBS)) -pthread -ldl' \
	    'Cflags: -I$${includedir}' >$@

install: lib ## install the C library, its headers and zmalloc.pc (PREFIX=, DESTDIR=)
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	install -m 644 $(PUBLIC:%=csrc/%) $(DESTDIR)$(PREFIX)/include
	install -m 644 $(OUT)/libzmalloc.a $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(OUT)/libzmalloc.so.0 $(DESTDIR)$(PREFIX)/lib
	ln -sf libzmalloc.so.0 $(DESTDIR)$(PREFIX)/lib/libzmalloc.so
	sed 's|^prefix=.*|prefix=$(PREFIX)|' $(OUT)/zmalloc.pc >$(DESTDIR)$(PREFIX)/lib/pkgconfig/zmalloc.pc

uninstall: ## take out what install put there
	rm -f $(PUBLIC:%=$(DESTDIR)$(PREFIX)/include/%) $(DESTDIR)$(PREFIX)/lib/libzmalloc.a \
	    $(DESTDIR)$(PREFIX)/lib/libzmalloc.so $(DESTDIR)$(PREFIX)/lib/libzmalloc.so.0 \
	    $(DESTDIR)$(PREFIX)/lib/pkgconfig/zmalloc.pc

clean: ## remove everything that was built
	rm -rf build dist .venv *.egg-info
