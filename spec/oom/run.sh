#!/bin/sh
# The core with the n-th allocation of Lua failing, n rising until everything gets through, under AddressSanitizer. See host.c.
#   make oom                       builds the core for it and calls this
#   spec/oom/run.sh [FIRST [LAST]] only these allocations; BUILD is the folder of a core built with the sanitizer
set -eu
cd "$(dirname "$0")/../.."

: "${LUAS:=5.4}" "${CC:=cc}"
version=${LUAS%% *}
: "${BUILD:=build/oom-$version}"
lua=$(bin/find-lua "$version") || { echo "oom: no Lua $version" >&2; exit 1; }
libs=$(pkg-config --libs "lua$version" 2>/dev/null || pkg-config --libs "lua-$version" 2>/dev/null || echo -llua)

# shellcheck disable=SC2046,SC2086 # lists of words
"$CC" -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all \
    $(bin/find-lua --cflags "$version") spec/oom/host.c -o "$BUILD/oom-host" -Wl,-E $libs -ldl -lm

LUA_PATH="./lua/?.lua;./lua/?/init.lua;./?.lua;${LUA_PATH:-;}"
LUA_CPATH="./$BUILD/?.so;${LUA_CPATH:-;}"
export LUA_PATH LUA_CPATH
export LSAN_OPTIONS="suppressions=$PWD/spec/oom/lsan.supp:print_suppressions=0"
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:exitcode=98"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
exec "$lua" spec/oom/run.lua "$BUILD/oom-host" "$@"
