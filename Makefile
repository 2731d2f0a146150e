# SPDX-License-Identifier: MIT
# Builds, tests and shows libpsbus. `make help` lists the targets.
#
# CC CFLAGS CPPFLAGS LDFLAGS LDLIBS are the caller's and stay untouched; what the project needs itself is in PS_… below and
# comes first, so that the caller has the last word. Everything made lies under $(BUILD).

CFLAGS ?= -O2 -g
BUILD  ?= build
# WERROR= goes on after warnings.
WERROR ?= -Werror

# Where `make install` puts things; the GNU names in small letters do as well. DESTDIR comes before all of them.
PREFIX     ?= $(or $(prefix),/usr/local)
BINDIR     ?= $(or $(bindir),$(PREFIX)/bin)
LIBDIR     ?= $(or $(libdir),$(PREFIX)/lib)
INCLUDEDIR ?= $(or $(includedir),$(PREFIX)/include)
DATADIR    ?= $(or $(datadir),$(PREFIX)/share)
MANDIR     ?= $(or $(mandir),$(DATADIR)/man)

# The library's sources by name, leaves first: an order that every part of the library may rely on.
SOURCES := \
	lib/platform/posix.c \
	lib/platform/linux.c \
	lib/base/error.c \
	lib/base/topic.c \
	lib/base/url.c \
	lib/ring/geometry.c \
	lib/ring/ring.c \
	lib/ring/claim.c \
	lib/ring/publish.c \
	lib/ring/evict.c \
	lib/ring/loan.c \
	lib/ring/join.c \
	lib/ring/lag.c \
	lib/ring/cells.c \
	lib/ring/stuck.c \
	lib/ring/late.c \
	lib/ring/reader.c \
	lib/ring/interest.c \
	lib/ring/port.c \
	lib/ring/wake.c \
	lib/ring/space.c \
	lib/inproc/inproc.c \
	lib/shm/layout.c \
	lib/shm/segment.c \
	lib/shm/doorbell.c \
	lib/shm/member.c \
	lib/shm/shm.c \
	lib/remote/stub.c \
	lib/core/transport.c \
	lib/core/subscription.c \
	lib/core/subscribe.c \
	lib/core/dispatch.c \
	lib/core/bus.c

# Files in which nothing runs for each message, or what does takes locks or calls the system: compiled for size where the caller
# asks for speed, and left at his level where he asks for something else. PS_COLD says the same of single functions, also in the
# vendored pair.
SMALL_SOURCES := \
	lib/platform/posix.c \
	lib/platform/linux.c \
	lib/base/error.c \
	lib/base/url.c \
	lib/ring/geometry.c \
	lib/ring/evict.c \
	lib/ring/loan.c \
	lib/ring/join.c \
	lib/ring/port.c \
	lib/ring/wake.c \
	lib/ring/space.c \
	lib/inproc/inproc.c \
	lib/shm/layout.c \
	lib/shm/segment.c \
	lib/shm/doorbell.c \
	lib/shm/member.c \
	lib/shm/shm.c \
	lib/remote/stub.c \
	lib/core/transport.c

# The header is the only place where the version stands.
VERSION := $(shell awk '/^.define PS_VERSION_(MAJOR|MINOR|PATCH) / { v = v dot $$3; dot = "." } END { print v }' include/psbus.h)
# The first number, or the first two while that is 0, as in psbusConfigVersion.cmake: what programs are linked against.
ABI     := $(if $(filter 0.%,$(VERSION)),$(basename $(VERSION)),$(firstword $(subst ., ,$(VERSION))))
SONAME  := libpsbus.so.$(ABI)

# SANITIZE is set by `make asan` and `make tsan`, which call this file again with a build directory of their own.
SANITIZE ?=
PS_WARNINGS := -Wall -Wextra -Wpedantic -Wconversion -Wshadow $(WERROR)
PS_CPPFLAGS := -Iinclude
PS_CFLAGS   := -std=c11 $(PS_WARNINGS) -fvisibility=hidden -pthread $(SANITIZE)
# The products carry no unwind tables: a sixth of their size, and an exception that left a handler through C code would leave the
# handle in its middle anyway. Test builds keep them.
# Nor is anything padded to whole fetches: two per cent of the size, within one per cent of the time.
PS_TAKES = $(shell $(CC) -Werror $(1) -c -x c -o /dev/null /dev/null 2>/dev/null && echo '$(1)' || echo '$(2)')
PS_UNPADDED := $(call PS_TAKES,-fno-align-functions -fno-align-jumps -fno-align-labels -fno-align-loops)
PS_PRODUCT_CFLAGS := $(if $(SANITIZE),,-fno-asynchronous-unwind-tables $(PS_UNPADDED))
PS_SMALLEST := $(call PS_TAKES,-Oz,-Os)
PS_SMALL_CFLAGS := $(if $(SANITIZE),,$(if $(filter -O2 -O3,$(lastword $(filter -O%,$(CFLAGS)))),$(PS_SMALLEST)))
PS_LDFLAGS  := -pthread $(SANITIZE)
# Addresses to be relocated as a bitmap, a fortieth of their size in a table: where linker and C library know it.
PS_PACK := $(shell \
	printf '\043include <features.h>\n\043if !__GLIBC_PREREQ(2, 36)\n\043error\n\043endif\nint i, *at = &i;\n' | \
	$(CC) $(CFLAGS) $(LDFLAGS) -fPIC -shared -Wl,--fatal-warnings,-z,pack-relative-relocs -o /dev/null -x c - 2>/dev/null && \
	echo -Wl,-z,pack-relative-relocs)
# Symbols that nobody defines are an error at link time. nodelete: a dlclose must not unload code that thread-local and fork
# handlers still point to.
PS_SHARED_LDFLAGS := $(PS_PACK) -shared -Wl,-soname,$(SONAME) -Wl,-z,defs -Wl,-z,nodelete \
	-Wl,--version-script,$(BUILD)/libpsbus.map

STATIC_LIBRARY := $(BUILD)/libpsbus.a
SHARED_LIBRARY := $(BUILD)/libpsbus.so.$(VERSION)
TEST_LIBRARY   := $(BUILD)/test/libpsbus-test.a

# SINGLE is set by `make check-single`: then the libraries are made of the vendored pair instead of the sources.
SINGLE ?=
OBJECTS        := $(if $(SINGLE),psbus.o,$(SOURCES:%.c=%.o))
STATIC_OBJECTS := $(OBJECTS:%=$(BUILD)/static/%)
SHARED_OBJECTS := $(OBJECTS:%=$(BUILD)/shared/%)
TEST_OBJECTS   := $(OBJECTS:%=$(BUILD)/test/%)

# An example is one file, or a directory whose files make one program.
EXAMPLE_SOURCES     := $(sort $(wildcard examples/*.c))
EXAMPLE_DIRECTORIES := $(patsubst %/,%,$(sort $(dir $(wildcard examples/*/*.c))))
EXAMPLES := $(EXAMPLE_SOURCES:%.c=$(BUILD)/%) $(EXAMPLE_DIRECTORIES:%=$(BUILD)/%)

# Test programs: `make check TESTS=tests/test_topic.c` runs just that one. Scripts test what is built and shipped; for a
# sanitizer there is nothing in them.
TESTS ?= $(sort $(wildcard tests/test_*.c)) $(sort $(wildcard tests/conform_*.c)) \
	$(sort $(wildcard tests/crash/*.c)) \
	$(if $(SANITIZE),,$(sort $(wildcard tests/test_*.sh)))
TEST_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(filter %.c,$(TESTS)))
TEST_SCRIPTS  := $(patsubst %,./%,$(filter %.sh,$(TESTS)))
TEST_SUPPORT  := $(BUILD)/test/tests/support.o
CONFORM_SUITE := $(patsubst %.c,$(BUILD)/test/%.o,$(wildcard tests/conform.c) $(sort $(wildcard tests/conform/*.c)))

# Seconds one test program may run, and how many run at the same time.
TIMEOUT_check ?= $(if $(SANITIZE),300,120)
JOBS ?= 1

# Asked late, because `make deps check` installs cmocka on the way.
CMOCKA_CFLAGS = $(shell pkg-config --cflags cmocka 2>/dev/null)
CMOCKA_LIBS   = $(shell pkg-config --libs cmocka 2>/dev/null || echo -lcmocka)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
.PHONY: all static shared single man examples demo deps check check-single asan tsan install uninstall clean help FORCE

# ------------------------------------------------------------------ what to ask for

# Everything that install needs, so that `make` and then `make install` as root builds nothing.
all: static shared man examples ## the libraries, the manual pages and the examples

static: $(STATIC_LIBRARY) ## build/libpsbus.a

shared: $(BUILD)/libpsbus.so ## build/libpsbus.so, with its soname

single: $(BUILD)/psbus.c ## build/psbus.h and build/psbus.c: the library as two files, to copy into a project

examples: $(EXAMPLES) ## the programs of examples/, among them the tool psbus

man: $(BUILD)/man/psbus.7 ## the manual pages, build/man

demo: all ## the main job on real text: processes streaming the sources, one killed, one stopped
	@$(BUILD)/examples/demo include lib examples tests

deps: ## install what the tests need, if it is missing (cmocka, pkg-config, cmake, mandoc, clang, g++, valgrind)
	@CC='$(CC)' CXX='$(CXX)' CFLAGS='$(CPPFLAGS) $(CFLAGS) $(LDFLAGS)' sh tests/deps.sh

check: static $(if $(SANITIZE),,shared single man) examples $(TEST_PROGRAMS) ## all tests; TESTS=FILE… for some, JOBS=N at a time
	@PS_BUILD='$(BUILD)' PS_MAKE='$(MAKE_COMMAND)' PS_SOURCES='$(SOURCES)' PS_WARNINGS='$(PS_WARNINGS)' CC='$(CC)' CXX='$(CXX)' \
	TIMEOUT='$(TIMEOUT_check)' JOBS='$(JOBS)' sh tests/run.sh '$(BUILD)/log' $(TEST_PROGRAMS) $(TEST_SCRIPTS)

check-single: ## all tests again, of a library made from the vendored pair
	@$(MAKE) --no-print-directory check BUILD='$(BUILD)/pair' SINGLE=1

asan: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@ASAN_OPTIONS="$${ASAN_OPTIONS:-detect_stack_use_after_return=1}" \
	UBSAN_OPTIONS="$${UBSAN_OPTIONS:-print_stacktrace=1}" \
	$(MAKE) --no-print-directory check BUILD='$(BUILD)/asan' \
		SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer'

# A forked child may make threads. Where addresses are randomised more than the sanitizer's runtime can take, setarch helps.
tsan: ## the tests under ThreadSanitizer
	@TSAN_OPTIONS="$${TSAN_OPTIONS:-halt_on_error=1 second_deadlock_stack=1 die_after_fork=0}" \
	WRAP="$$(setarch -R true 2>/dev/null && echo setarch -R)" \
	$(MAKE) --no-print-directory check BUILD='$(BUILD)/tsan' SANITIZE='-fsanitize=thread -fno-omit-frame-pointer'

# Both take the same variables; uninstall takes away what an install with the same ones has put there.
INSTALL_RECORD ?= $(BUILD)/installed
INSTALL = @RECORD='$(INSTALL_RECORD)' BUILD='$(BUILD)' VERSION='$(VERSION)' CC='$(CC)' \
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' BINDIR='$(BINDIR)' LIBDIR='$(LIBDIR)' INCLUDEDIR='$(INCLUDEDIR)' \
	MANDIR='$(MANDIR)' DATADIR='$(DATADIR)' sh pkgconfig/install.sh

install: static shared $(BUILD)/examples/psbus man ## header, libraries, tool, pages, for pkg-config and CMake; DESTDIR=, PREFIX=
	$(INSTALL) install

uninstall: ## take exactly that away again
	$(INSTALL) uninstall

# However it is named: neither the checkout, nor what is above it, nor its sources.
clean: ## remove the build directory
	@bad=; here=$$(pwd -P); there=$$(cd '$(BUILD)' 2>/dev/null && pwd -P || echo none); \
	case '$(BUILD)' in ''|.|..|/|*/) there=/;; esac; \
	case "$${here%/}/" in "$${there%/}"/*) bad=1;; esac; \
	for part in include lib examples tests pkgconfig .git .ci; do \
		case "$$there/" in "$$here/$$part"/*) bad=1;; esac; \
	done; \
	[ -z "$$bad" ] || { echo "clean: BUILD='$(BUILD)' is no directory of ours" >&2; exit 1; }
	rm -rf '$(BUILD)'

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ------------------------------------------------------------------ libraries

# How each step begins: one short line, or with V=1 the whole command.
SAY = $(if $(V),,@)mkdir -p $(@D) &&$(if $(V),, echo "  $(1) $@" &&)

# Removed first, so that no object of before stays in it.
ARCHIVE = $(call SAY,$(AR)) rm -f $@ && $(AR) rcs $@

$(STATIC_LIBRARY): $(STATIC_OBJECTS)
	$(ARCHIVE) $(STATIC_OBJECTS)

$(TEST_LIBRARY): $(TEST_OBJECTS)
	$(ARCHIVE) $(TEST_OBJECTS)

# Under -DPS_PREFIX=acme_ the functions have other names, and the map has to know them. The compiler says what it makes of the
# flags: the prefix, or PS_PREFIX itself where there is none.
$(BUILD)/libpsbus.map: lib/libpsbus.map $(BUILD)/flags
	$(call SAY,map) prefix=$$(echo PS_PREFIX | $(CC) $(CPPFLAGS) $(CFLAGS) -E -P -x c - | tail -n 1) && \
		sed "s/^    ps_/    $${prefix#PS_PREFIX}ps_/" $< >$@

$(SHARED_LIBRARY): $(SHARED_OBJECTS) $(BUILD)/libpsbus.map
	$(LINK) $(PS_SHARED_LDFLAGS) $(SHARED_OBJECTS) $(LDLIBS)

$(BUILD)/libpsbus.so: $(SHARED_LIBRARY)
	$(call SAY,ln) ln -sf $(<F) $(BUILD)/$(SONAME) && ln -sf $(SONAME) $@

# TOOL_RUN runs the tool where it was built for another machine (qemu-aarch64).
$(BUILD)/man/psbus.7: $(wildcard lib/man/*) include/psbus.h CHANGELOG.md $(BUILD)/examples/psbus
	$(call SAY,man) sh lib/man/pages.sh $(@D) $(TOOL_RUN) $(BUILD)/examples/psbus

# The two files are written together.
$(BUILD)/psbus.c: lib/amalgamate.sh LICENSE include/psbus.h $(SOURCES) $(wildcard lib/*/*.h) $(BUILD)/flags
	$(call SAY,single) sh lib/amalgamate.sh $(@D) $(SOURCES)

# A name in SOURCES that is not there (yet), and a source that is not in SOURCES, are said plainly.
MISSING := $(filter-out $(wildcard $(SOURCES)),$(SOURCES))
ifneq ($(MISSING),)
.PHONY: $(MISSING)
$(MISSING):
	@echo "Makefile: SOURCES names $@, which does not exist" >&2; exit 1
endif
UNLISTED := $(filter-out $(SOURCES),$(wildcard lib/*/*.c))
ifneq ($(UNLISTED),)
$(warning not in SOURCES, so not built: $(UNLISTED))
endif

# ------------------------------------------------------------------ objects, in three variants

SMALL = $(if $(filter $<,$(SMALL_SOURCES)),$(PS_SMALL_CFLAGS))
COMPILE = $(call SAY,$(CC)) $(CC) $(PS_CPPFLAGS) $(CPPFLAGS) $(PS_CFLAGS) $(CFLAGS) -MMD -MP

$(BUILD)/static/%.o: %.c $(BUILD)/flags
	$(COMPILE) $(PS_PRODUCT_CFLAGS) $(SMALL) -c $< -o $@

$(BUILD)/shared/%.o: %.c $(BUILD)/flags
	$(COMPILE) -fPIC $(PS_PRODUCT_CFLAGS) $(SMALL) -c $< -o $@

$(BUILD)/test/%.o: %.c $(BUILD)/flags
	$(COMPILE) -DPS_TEST_HOOKS -Itests $(if $(filter tests/%,$<),$(CMOCKA_CFLAGS)) -c $< -o $@

$(BUILD)/static/psbus.o: $(BUILD)/psbus.c
	$(COMPILE) $(PS_PRODUCT_CFLAGS) -c $< -o $@

$(BUILD)/shared/psbus.o: $(BUILD)/psbus.c
	$(COMPILE) -fPIC $(PS_PRODUCT_CFLAGS) -c $< -o $@

# Tests of private functions have to see them; everywhere else they are static in the pair.
$(BUILD)/test/psbus.o: $(BUILD)/psbus.c
	$(COMPILE) -DPS_TEST_HOOKS '-DPS_PRIVATE=__attribute__((visibility("hidden")))' -c $< -o $@

# Rewritten only when a flag changed, and every object depends on it.
$(BUILD)/flags: export FLAGS_NOW := $(VERSION) $(CC) / $(PS_CPPFLAGS) $(CPPFLAGS) $(PS_CFLAGS) $(PS_PRODUCT_CFLAGS) $(CFLAGS) / \
	$(PS_LDFLAGS) $(PS_SHARED_LDFLAGS) $(LDFLAGS) $(LDLIBS) / $(SOURCES) $(SINGLE) $(SMALL_SOURCES)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$FLAGS_NOW" | cmp -s - $@ || printf '%s\n' "$$FLAGS_NOW" >$@

# ------------------------------------------------------------------ programs

LINK = $(call SAY,$(CC)) $(CC) $(PS_CFLAGS) $(CFLAGS) $(PS_LDFLAGS) $(LDFLAGS) -o $@

$(EXAMPLE_SOURCES:%.c=$(BUILD)/%): $(BUILD)/%: $(BUILD)/static/%.o $(STATIC_LIBRARY)
	$(LINK) $^ $(LDLIBS)

define EXAMPLE_DIRECTORY
$(BUILD)/$(1): $(patsubst %.c,$(BUILD)/static/%.o,$(sort $(wildcard $(1)/*.c))) $(STATIC_LIBRARY)
	$$(LINK) $$^ $$(LDLIBS)
endef
$(foreach directory,$(EXAMPLE_DIRECTORIES),$(eval $(call EXAMPLE_DIRECTORY,$(directory))))

$(filter $(BUILD)/tests/conform_%,$(TEST_PROGRAMS)): $(CONFORM_SUITE)

$(TEST_PROGRAMS): $(BUILD)/%: $(BUILD)/test/%.o $(TEST_SUPPORT) $(TEST_LIBRARY)
	$(LINK) $(filter %.o,$^) $(TEST_LIBRARY) $(CMOCKA_LIBS) $(LDLIBS)

# With `make -j deps check` the tests wait for what they need.
ifneq ($(filter deps,$(MAKECMDGOALS)),)
$(patsubst %.c,$(BUILD)/test/%.o,$(TESTS)) $(TEST_SUPPORT) $(CONFORM_SUITE) check: | deps
endif

# ------------------------------------------------------------------ speed, and long runs

.PHONY: bench bench-peers bench-deps bench-peers-deps

BENCH_OBJECTS := $(patsubst %.c,$(BUILD)/static/%.o,$(sort $(wildcard tests/bench/*.c)) tests/bench/peers/peer.c)
# Adapters of the libraries that are here, each by its header: not all have a pkg-config file.
PEERS = $(foreach peer,zmq:zmq.h nng:nng/nng.h redis:hiredis/hiredis.h,$(shell printf '\043include <%s>\n' \
	$(lastword $(subst :, ,$(peer))) | $(CC) $(CPPFLAGS) -E - >/dev/null 2>&1 && echo $(firstword $(subst :, ,$(peer)))))
PEER_LIBS = $(patsubst -lredis,-lhiredis,$(PEERS:%=-l%))

# $(1): the program. The environment PS_BENCH_REPS, PS_BENCH_MS and PS_BENCH_ONLY is described in tests/bench/main.c.
RUN_BENCH = mkdir -p '$(BUILD)/bench' && '$(1)' '$(BUILD)/libpsbus.so' '$(BUILD)/tests/bench/start/first' '$(BUILD)/bench' && \
	sh tests/bench/plots.sh '$(BUILD)/bench'

BENCH_NEEDS := static shared $(BUILD)/tests/bench/start/first

bench: $(BENCH_NEEDS) $(BUILD)/tests/bench/bench ## speed and memory beside the machine's limits; build/bench/*.csv, *.svg
	@$(call RUN_BENCH,$(BUILD)/tests/bench/bench)

bench-peers: $(BENCH_NEEDS) $(BUILD)/tests/bench/bench-peers ## the same, and ZeroMQ, nng and Redis where they are installed
	@$(call RUN_BENCH,$(BUILD)/tests/bench/bench-peers)

bench-deps: ## install what bench draws plots with (gnuplot)
	@sh tests/bench/deps.sh bench-deps gnuplot-nox

bench-peers-deps: ## install the peers that bench-peers can measure
	@sh tests/bench/deps.sh bench-peers-deps pkg-config libzmq3-dev libnng-dev libhiredis-dev redis-server

$(BUILD)/tests/bench/bench: $(BENCH_OBJECTS) $(STATIC_LIBRARY)
	$(LINK) $^ -lm $(LDLIBS)

# Linked anew each time, because what is installed may have changed.
$(BUILD)/tests/bench/bench-peers: $(BENCH_OBJECTS) $(STATIC_LIBRARY) FORCE
	@[ -n '$(PEERS)' ] || echo 'bench-peers: no peer is installed (make bench-peers-deps installs them)'
	$(if $(PEERS),@$(MAKE) --no-print-directory $(PEERS:%=$(BUILD)/static/tests/bench/peers/%.o))
	$(LINK) $(filter %.o,$^) $(PEERS:%=$(BUILD)/static/tests/bench/peers/%.o) $(STATIC_LIBRARY) $(PEER_LIBS) -lm $(LDLIBS)

$(BUILD)/tests/bench/start/first: $(BUILD)/static/tests/bench/start/first.o $(STATIC_LIBRARY)
	$(LINK) $^ $(LDLIBS)

# Counted in a build with flags of its own, because every flag changes the counts. UPDATE=1 writes the table of limits anew.
.PHONY: check-instructions
check-instructions: ## instructions of publish and dispatch against the checked-in limits
	@$(MAKE) --no-print-directory BUILD='$(BUILD)/instructions' CFLAGS=-O2 CPPFLAGS= LDFLAGS= LDLIBS= \
		'$(BUILD)/instructions/tests/bench/instructions/count'
	@UPDATE='$(UPDATE)' sh tests/bench/instructions.sh '$(BUILD)/instructions/tests/bench/instructions/count' \
		tests/bench/instructions '$(CC)'

$(BUILD)/tests/bench/instructions/count: $(BUILD)/static/tests/bench/instructions/count.o $(STATIC_LIBRARY)
	$(LINK) $^ $(LDLIBS)

.PHONY: check-long check-models
check-long: check-models soak ## what takes too long to run for every change: the models, the soak
check-models: ## the ring's protocol and its mutants through GenMC (GENMC=…), where there is one
	@sh tests/models/check.sh

.PHONY: soak
soak: $(BUILD)/tests/soak/soak ## all features for 10 minutes (SOAK_SECONDS=N), and nothing grows
	@'$<'

$(BUILD)/tests/soak/soak: $(patsubst %.c,$(BUILD)/static/%.o,$(sort $(wildcard tests/soak/*.c))) $(STATIC_LIBRARY)
	$(LINK) $^ $(LDLIBS)

-include $(shell [ ! -d '$(BUILD)' ] || find '$(BUILD)/static' '$(BUILD)/shared' '$(BUILD)/test' -name '*.d' 2>/dev/null)
