# e2b: the C core for one Lua, and everything around it. `make help` lists the targets.
# Nothing here has to be edited: every variable with ?= can be given on the command line.

LUA_VERSION ?= 5.4
# What make test runs, by name.
LUAS        ?= 5.1 5.2 5.3 5.4 luajit
JOBS        ?= 1
PREFIX      ?= /usr/local

# LuaJIT loads what Lua 5.1 loads, and from the same folders.
LUA_ABI     := $(if $(filter luajit%,$(LUA_VERSION)),5.1,$(LUA_VERSION))
INST_LUADIR ?= $(PREFIX)/share/lua/$(LUA_ABI)
INST_LIBDIR ?= $(PREFIX)/lib/lua/$(LUA_ABI)
INST_BINDIR ?= $(PREFIX)/bin
INSTALL     ?= install

# Asked for when they are used, not when this file is read: make deps may have installed what they ask for in between.
LUA         ?= $(shell bin/find-lua $(LUA_VERSION))
LUA_CFLAGS  ?= $(if $(LUA_INCDIR),-I$(LUA_INCDIR),$(or $(shell bin/find-lua --cflags $(LUA_VERSION)),$(NO_HEADERS)))
NO_HEADERS   = $(error no headers of Lua $(LUA_VERSION) found: make deps installs them, LUA_INCDIR= names their folder)
CURL_CFLAGS ?= $(shell pkg-config --cflags libcurl 2>/dev/null || curl-config --cflags 2>/dev/null)
CURL_LIBS   ?= $(shell pkg-config --libs libcurl 2>/dev/null || curl-config --libs 2>/dev/null || echo -lcurl)
ZLIB_CFLAGS ?= $(shell pkg-config --cflags zlib 2>/dev/null)
ZLIB_LIBS   ?= $(shell pkg-config --libs zlib 2>/dev/null || echo -lz)
# In the C library of some systems, beside it on others.
THREAD_LIBS ?= -lpthread

# liblua is never linked: the interpreter that loads the module brings it.
ifeq ($(shell uname -s),Darwin)
LIBFLAG     ?= -bundle -undefined dynamic_lookup
else
LIBFLAG     ?= -shared
endif

WARNINGS    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla
ifneq ($(filter-out 0 no,$(WERROR)),)
WARNINGS    += -Werror
endif

ifeq ($(BUILD),)
BUILD       := build/$(LUA_VERSION)
endif
# The user's CFLAGS and LDFLAGS come last, so that they win.
COMPILE      = $(CC) -O2 -fPIC -std=c99 -D_GNU_SOURCE $(WARNINGS) \
               $(strip -Icsrc $(LUA_CFLAGS) $(CURL_CFLAGS) $(ZLIB_CFLAGS) $(CPPFLAGS) $(CFLAGS))
LINK         = $(CC) $(LIBFLAG) $(strip $(CFLAGS) $(LDFLAGS))

SOURCES     := $(wildcard csrc/*.c)
OBJECTS     := $(SOURCES:csrc/%.c=$(BUILD)/obj/%.o)
CORE        := $(BUILD)/e2b/core.so
# What the local server needs of the system: a module of its own, which the library never loads.
NATIVE_SOURCES := $(wildcard csrc/server/*.c)
NATIVE_OBJECTS := $(NATIVE_SOURCES:csrc/%.c=$(BUILD)/obj/%.o)
NATIVE      := $(BUILD)/e2b/server/native.so

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all build FORCE

all: build
build: $(CORE) $(NATIVE)

$(CORE): $(OBJECTS) $(BUILD)/obj/flags
	@mkdir -p $(@D)
	$(LINK) -o $@.new $(OBJECTS) $(CURL_LIBS) $(ZLIB_LIBS) $(THREAD_LIBS)
	@mv -f $@.new $@

$(NATIVE): $(NATIVE_OBJECTS) $(BUILD)/obj/flags
	@mkdir -p $(@D)
	$(LINK) -o $@.new $(NATIVE_OBJECTS) $(ZLIB_LIBS)
	@mv -f $@.new $@

$(BUILD)/obj/%.o: csrc/%.c $(BUILD)/obj/flags
	@mkdir -p $(@D)
	$(COMPILE) -MMD -MP -c -o $@ $<

# Holds the commands that built this folder; other flags, another compiler or another Lua build it anew.
$(BUILD)/obj/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(COMPILE) | $(LINK) $(CURL_LIBS) $(ZLIB_LIBS) $(THREAD_LIBS) | $(SOURCES) $(NATIVE_SOURCES))' > $@.$$$$ && \
		if cmp -s $@.$$$$ $@; then rm -f $@.$$$$; else mv -f $@.$$$$ $@; fi

FORCE:

-include $(OBJECTS:.o=.d) $(NATIVE_OBJECTS:.o=.d)



# --- what needs packages installs them first (DEPS=no leaves that out) ---
DEPS ?= yes
# The tree as a search path, for what is run in place.
IN_TREE = env LUA_PATH='./lua/?.lua;./lua/?/init.lua;;' LUA_CPATH='./$(BUILD)/?.so;;'

.PHONY: help deps demo repl server neovim test lint asan valgrind oom bench acceptance doc install uninstall clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

deps: ## install what is missing (the list comes first), through apt-get
	@bin/deps all $(LUAS)

# The packages of a set, and the core for LUA_VERSION. The build is a make of its own: this one may have asked pkg-config
# before there was anything to find. What watches memory builds a core of its own, so two of them may run at a time.
PACKAGES := $(addprefix packages-,build demo repl lint asan valgrind oom bench)
READY    := ready-build ready-demo ready-repl ready-lint ready-bench
.PHONY: $(PACKAGES) $(READY)
$(PACKAGES): packages-%:
	@$(if $(filter no,$(DEPS)),:,bin/deps $* $(LUA_VERSION))
$(READY): ready-%: packages-%
	@$(MAKE) --no-print-directory -s LUA_VERSION='$(LUA_VERSION)' build

demo: ready-demo ## the main job on a private local server, without any account
	@$(IN_TREE) $(LUA) bin/with-server examples/lifecycle.lua

repl: ready-repl ## a Lua prompt with the library ready (ARGS="--local": with a local server)
	@$(LUA) bin/e2b repl $(ARGS)

server: ready-demo ## the local server in the foreground (ARGS="--port 3000" are its options)
	@$(IN_TREE) $(LUA) bin/e2b-server $(ARGS)

# Nothing is installed for it: plugin managers run it, and not as root. Neovim looks for C modules in lua/, too.
NVIM_LUA = $(if $(filter command line,$(origin LUA_VERSION)),$(LUA_VERSION),luajit)
neovim: ## the core for Neovim, if this folder is one of its plugins (see :help e2b)
	@$(MAKE) --no-print-directory -s LUA_VERSION='$(NVIM_LUA)' build
	@cp 'build/$(NVIM_LUA)/e2b/core.so' lua/e2b/core.so.new
	@mv -f lua/e2b/core.so.new lua/e2b/core.so

# Exit status 3 of deps: only a Lua is missing; bin/test fails by its name then.
test: ## the specs on every Lua (LUAS="5.4 luajit" narrows it, so does SPEC=spec/x_spec.lua; JOBS=2: two Luas at a time)
	@$(if $(filter no,$(DEPS)),:,bin/deps test $(LUAS) || test $$? -eq 3)
	@LUAS='$(LUAS)' JOBS='$(JOBS)' SPECS='$(SPEC)' BUSTED_ARGS='$(BUSTED_ARGS)' MAKE='$(MAKE)' bin/test

lint: ready-lint ## luacheck, gcc and clang with warnings as errors, clang-tidy, cppcheck, shellcheck
	@LUAS='$(LUAS)' MAKE='$(MAKE)' bin/lint

# The sanitizers watch PUC Lua: LuaJIT's own allocator would hide what they look for.
asan: packages-asan ## the specs under AddressSanitizer, LeakSanitizer and UBSan
	@LUAS='$(LUA_VERSION)' SPECS='$(SPEC)' BUSTED_ARGS='$(BUSTED_ARGS)' MAKE='$(MAKE)' bin/sanitize asan

valgrind: packages-valgrind ## the specs under valgrind's memcheck
	@LUAS='$(LUA_VERSION)' SPECS='$(SPEC)' BUSTED_ARGS='$(BUSTED_ARGS)' MAKE='$(MAKE)' bin/sanitize valgrind

oom: packages-oom ## the specs of the core with the n-th allocation failing, n rising until they pass
	@LUAS='$(LUA_VERSION)' MAKE='$(MAKE)' bin/sanitize oom

bench: ready-bench ## CPU, wall time and memory beside plain C, the curl program, naive Lua and the JavaScript SDK
	@sh bench/run.sh

acceptance: ready-demo ## the official SDKs against the local server (needs node, python3 and the network)
	@sh spec/acceptance/run.sh

doc: ready-demo ## the pages of the reference, into build/doc
	@$(IN_TREE) $(LUA) meta/doc.lua build/doc

# --- installing ---
PROGRAMS    := e2b e2b-server
LUA_FILES    = $(sort $(shell find lua -name '*.lua'))
AT_LUADIR   := $(DESTDIR)$(INST_LUADIR)
AT_LIBDIR   := $(DESTDIR)$(INST_LIBDIR)
AT_BINDIR   := $(DESTDIR)$(INST_BINDIR)

install: build ## into PREFIX (/usr/local), for one LUA_VERSION; DESTDIR in front of every path
	@for file in $(LUA_FILES:lua/%=%); do \
		$(INSTALL) -d "$(AT_LUADIR)/$$(dirname $$file)" && \
		$(INSTALL) -m 644 "lua/$$file" "$(AT_LUADIR)/$$file" || exit 1; done
	$(INSTALL) -d "$(AT_LIBDIR)/e2b/server" "$(AT_BINDIR)"
	$(INSTALL) -m 755 $(CORE) "$(AT_LIBDIR)/e2b/core.so"
	$(INSTALL) -m 755 $(NATIVE) "$(AT_LIBDIR)/e2b/server/native.so"
	@for program in $(PROGRAMS); do { printf '#!%s\n' '$(LUA)'; \
		printf 'package.path = "%s/?.lua;%s/?/init.lua;" .. package.path\n' '$(INST_LUADIR)' '$(INST_LUADIR)'; \
		printf 'package.cpath = "%s/?.so;" .. package.cpath\n' '$(INST_LIBDIR)'; \
		tail -n +2 bin/$$program; } > '$(BUILD)'/$$program.new && \
		$(INSTALL) -m 755 '$(BUILD)'/$$program.new "$(AT_BINDIR)/$$program" || exit 1; done

uninstall: ## what install put there, and nothing else
	rm -rf "$(AT_LUADIR)/e2b" "$(AT_LIBDIR)/e2b"
	rm -f $(PROGRAMS:%="$(AT_BINDIR)/%")

clean: ## everything that was built
	rm -rf build lua/e2b/core.so
