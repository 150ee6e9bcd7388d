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
LUA_CFLAGS  ?= $(if $(LUA_INCDIR),-I$(LUA_INCDIR),$(shell bin/find-lua --cflags $(LUA_VERSION)))
CURL_CFLAGS ?= $(shell pkg-config --cflags libcurl 2>/dev/null || curl-config --cflags 2>/dev/null)
CURL_LIBS   ?= $(shell pkg-config --libs libcurl 2>/dev/null || curl-config --libs 2>/dev/null || echo -lcurl)

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

BUILD       ?= build/$(LUA_VERSION)
# The user's CFLAGS and LDFLAGS come last, so that they win.
COMPILE      = $(CC) -O2 -fPIC -std=c99 -D_GNU_SOURCE $(WARNINGS) $(strip $(LUA_CFLAGS) $(CURL_CFLAGS) $(CPPFLAGS) $(CFLAGS))
LINK         = $(CC) $(LIBFLAG) $(strip $(CFLAGS) $(LDFLAGS))

SOURCES     := $(wildcard csrc/*.c)
OBJECTS     := $(SOURCES:csrc/%.c=$(BUILD)/obj/%.o)
CORE        := $(BUILD)/e2b/core.so

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all build FORCE

all: build
build: $(CORE)

$(CORE): $(OBJECTS) $(BUILD)/obj/flags
	@mkdir -p $(@D)
	$(LINK) -o $@.new $(OBJECTS) $(CURL_LIBS)
	@mv -f $@.new $@

$(BUILD)/obj/%.o: csrc/%.c $(BUILD)/obj/flags
	$(COMPILE) -MMD -MP -c -o $@ $<

# Holds the commands that built this folder; other flags, another compiler or another Lua build it anew.
$(BUILD)/obj/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(COMPILE) | $(LINK) $(CURL_LIBS) | $(SOURCES))' > $@.new
	@if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi

FORCE:

-include $(OBJECTS:.o=.d)

.PHONY: test clean
test:
	@LUAS='$(LUAS)' JOBS='$(JOBS)' SPECS='$(SPEC)' BUSTED_ARGS='$(BUSTED_ARGS)' MAKE='$(MAKE)' bin/test

clean:
	rm -rf build
