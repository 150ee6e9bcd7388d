#!/bin/sh
# What happens inside a sandbox: commands, their output, files up and down; this module beside the JavaScript SDK and, for
# the transfers, the curl program. First against a canned sandbox that costs next to nothing (bench/sandbox.c), which is
# where clients are compared; then against the local server with its real processes and files, where it is the server
# that takes the time. Interleaved; medians, ratios and targets.
#
#   sh bench/inside.sh         RUNS=5        runs of each, the median counts         REAL_RUNS=3   on the local server
#                              JS=1          npm installs the SDK into the build folder when it is not there
#                              CLIENTS="e2b luajit sdk curl"    SERVERS="canned real"
#                              WORKLOADS="start run run50 lines flushed output drain down up small tree"
#                              FOLDER=…      for the files, which take 2 GiB (/dev/shm, or the build folder)
set -eu
cd "$(dirname "$0")/.."
. bench/common.sh
runs=${RUNS:-5}
real_runs=${REAL_RUNS:-3}
wanted=${CLIENTS:-e2b luajit sdk curl}
servers=${SERVERS:-canned real}
workloads=${WORKLOADS:-start run run50 lines flushed output drain down up small tree}
gib=1073741824

clients=
for client in $wanted; do
    case $client in
    e2b)
        ready_e2b
        clients="$clients e2b" ;;
    luajit) ready_luajit && clients="$clients luajit" ;;
    sdk) ready_sdk && clients="$clients sdk" ;;
    curl)
        if have curl; then clients="$clients curl"; else leave_out curl "no curl program"; fi ;;
    *) fail "no client $client" ;;
    esac
done

${CC:-cc} -O2 -Wall -Wextra -o "$out/runner" bench/runner.c
${CC:-cc} -O2 -Wall -Wextra -pthread -o "$out/sandbox" bench/sandbox.c

# files: the memory of the system where there is enough of it, as it isn't disks that are compared
room() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }'; }
if [ -z "${FOLDER:-}" ]; then
    FOLDER=$out
    if [ -d /dev/shm ] && [ -w /dev/shm ] && [ "$(room /dev/shm)" -gt 4194304 ]; then FOLDER=/dev/shm; fi
fi
[ "$(room "$FOLDER")" -gt 3145728 ] || fail "3 GiB are needed in $FOLDER (FOLDER= names another place)"
folder=$(mktemp -d "$FOLDER/e2b-bench.XXXXXX")
sweep() {
    stop
    rm -rf "$folder"
}
trap sweep EXIT
mkdir "$folder/small"
head -c "$gib" /dev/urandom >"$folder/up"
"$lua" - "$folder/small" <<'LUA'
for i = 1, 1000 do
  local file = assert(io.open(("%s/file-%04d.txt"):format(arg[1], i), "w"))
  assert(file:write((("line of file %04d\n"):format(i)):rep(60)))
  assert(file:close())
end
LUA

one_environment

measure() { # client workload count: "wall cpu rss"
    case $1 in
    e2b) LUA_CPATH="$root/build/5.4/?.so;;" "$out/runner" "$lua" bench/inside.lua "$url" "$2" "$3" "$folder" ;;
    luajit) LUA_CPATH="$root/build/luajit/?.so;;" "$out/runner" "$luajit" bench/inside.lua "$url" "$2" "$3" "$folder" ;;
    sdk) "$out/runner" "$node" bench/inside.js "$url" "$2" "$3" "$folder" ;;
    curl) transfer "$2" ;;
    esac
}

transfer() { # what the program does of a workload
    set -- "$1" -sS --fail -H "E2b-Sandbox-Id: $id" -H "E2b-Sandbox-Port: 49983" -H "X-Access-Token: $token"
    workload_=$1
    shift
    case $workload_ in
    drain) "$out/runner" curl "$@" -o /dev/null "$url/files?path=$BENCH_CURL_DOWN" ;;
    down) "$out/runner" curl "$@" -o "$folder/down" "$url/files?path=$BENCH_CURL_DOWN" ;;
    up)
        "$out/runner" curl "$@" -X POST -T "$folder/up" -H "Content-Type: application/octet-stream" -H "Expect:" \
            -o /dev/null "$url/files?path=%2Fhome%2Fuser%2Fup" ;;
    esac
}

count_of() {
    case $1 in
    start) echo 1 ;;
    run | run50) echo "$commands" ;;
    lines | flushed) echo 100000 ;;
    output) echo 268435456 ;;
    drain | down | up) echo "$gib" ;;
    small | tree) echo 1000 ;;
    *) fail "no workload $1" ;;
    esac
}

rounds() { # results runs
    : >"$1"
    round=1
    while [ "$round" -le "$2" ]; do
        for workload in $workloads; do
            count=$(count_of "$workload")
            for client in $clients; do
                case $client-$workload in
                curl-drain | curl-down | curl-up) ;;
                curl-*) continue ;;
                esac
                cost=$(measure "$client" "$workload" "$count") || fail "$client failed at $workload"
                echo "$workload $client $cost" >>"$1"
                rm -f "$folder/down" # giving the memory of a large file back takes time that is nobody's
            done
        done
        say "run $round of $2"
        round=$((round + 1))
    done
}

heading() {
    echo
    echo "$1: $(uname -sm), libcurl $(pkg-config --modversion libcurl)"
    case " $clients " in *" sdk "*) version_of_sdk ;; esac
}

# A sandbox of the local server's for the curl program, with the file that it fetches.
for_curl() {
    created=$(curl -sS --fail -X POST "$url/v2/sandboxes" -H "X-API-Key: e2b_$(printf %040d 0)" \
        -H "Content-Type: application/json" -d '{"templateID":"base","timeout":3600}')
    id=$(printf %s "$created" | sed 's/.*"sandboxID":"\([^"]*\)".*/\1/')
    token=$(printf %s "$created" | sed 's/.*"envdAccessToken":"\([^"]*\)".*/\1/')
    transfer up >/dev/null
}

for kind in $servers; do
    port=$("$out/runner" --port)
    url=http://127.0.0.1:$port
    case $kind in
    canned)
        pin
        "$out/runner" --tied "$out/sandbox" "$port" &
        server=$!
        "$out/runner" --wait "$port"
        id=ibench0000000000000001 token=none commands=500
        export BENCH_LINES=lines BENCH_FLUSHED=flushed BENCH_OUTPUT=output BENCH_DOWN=/$gib BENCH_PREPARE=
        BENCH_CURL_DOWN=%2F$gib
        rounds "$out/inside-canned" "$runs"
        unpin
        heading "A canned sandbox, everything on one CPU" ;;
    real)
        TMPDIR=$folder LUA_CPATH="$root/build/5.4/?.so;;" "$out/runner" --tied \
            "$lua" bin/e2b-server --port "$port" --quiet >"$out/server.log" 2>&1 &
        server=$!
        "$out/runner" --wait "$port" || fail "the local server: $(tail -n 3 "$out/server.log")"
        line=$(printf %078d 7)
        export BENCH_LINES="yes ' $line' | head -n 100000"
        export BENCH_FLUSHED="awk 'BEGIN { for (i = 0; i < 100000; i++) { printf \"%079d\\n\", i; fflush() } }'"
        export BENCH_OUTPUT="yes ' $line' | head -c 268435456"
        export BENCH_PREPARE="truncate -s $gib /tmp/down" BENCH_DOWN=/tmp/down BENCH_CURL_DOWN=%2Fhome%2Fuser%2Fup
        commands=100
        case $clients in *curl*) for_curl ;; esac
        rounds "$out/inside-real" "$real_runs"
        heading "The local server" ;;
    *) fail "no server $kind" ;;
    esac
    stop
    "$lua" bench/inside_report.lua "$out/inside-$kind" "$kind"
done
