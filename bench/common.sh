# shellcheck shell=sh
# What run.sh and inside.sh share. Sourced from the root of the tree; sets root, out, lua, luajit, node and the environment.
root=$PWD
out=$root/build/bench
mkdir -p "$out/temp"

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "bench: $*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
leave_out() { say "left out: $1 ($2)"; }

# Everything started from here inherits the one CPU: wake-ups across cores double times and noise.
pin() {
    if have taskset; then
        cpus=$(taskset -cp $$ | sed 's/.*: *//')
        taskset -cp "${cpus##*[,-]}" $$ >/dev/null
        say "pinned to CPU ${cpus##*[,-]}"
    else
        say "taskset is not there: nothing is pinned, expect noise"
    fi
}

unpin() { [ -z "${cpus:-}" ] || taskset -cp "$cpus" $$ >/dev/null; }

have lua5.4 && lua=lua5.4 || lua=lua
export lua
luajit=$(command -v luajit || true)
node=$(command -v node || true)

# The module is there for Lua 5.4, or can be built.
ready_e2b() { [ -e build/5.4/e2b/core.so ] || ${MAKE:-make} LUA_VERSION=5.4 >&2; }

ready_luajit() {
    if [ -z "$luajit" ]; then
        leave_out luajit "no luajit"
        return 1
    fi
    [ -e build/luajit/e2b/core.so ] || ${MAKE:-make} LUA_VERSION=luajit >&2 || {
        leave_out luajit "the module does not build for it"
        return 1
    }
}

ready_sdk() {
    if [ -z "$node" ]; then
        leave_out sdk "no node"
        return 1
    fi
    NODE_PATH=$out/node_modules${NODE_PATH:+:$NODE_PATH}
    if have npm; then
        NODE_PATH=$NODE_PATH:$(npm root -g 2>/dev/null)
    fi
    export NODE_PATH
    if ! "$node" -e 'require.resolve("e2b")' 2>/dev/null && [ "${JS:-0}" = 1 ]; then
        npm install --no-save --no-audit --no-fund --prefix "$out" e2b >&2 || true
    fi
    "$node" -e 'require.resolve("e2b")' 2>/dev/null || {
        leave_out sdk "the npm package e2b is not there: JS=1 installs it into build/bench"
        return 1
    }
}

version_of_sdk() {
    "$node" -p 'const p = require.resolve("e2b"); "node " + process.version + ", e2b " +
      JSON.parse(require("fs").readFileSync(p.slice(0, p.lastIndexOf("/e2b/") + 5) + "package.json")).version'
}

# The server behind the clients; it also ends when this shell is killed.
server=
stop() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
    server=
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# One environment for all: no proxy, nothing of the caller's account.
one_environment() {
    unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY
    unset E2B_API_KEY E2B_API_URL E2B_DOMAIN E2B_SANDBOX_URL E2B_DEBUG
    LUA_PATH="$root/lua/?.lua;$root/lua/?/init.lua;;"
    export LUA_PATH
    unset LUA_PATH_5_4 LUA_CPATH_5_4
}
