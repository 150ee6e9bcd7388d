#!/bin/sh
# Runs this module beside a bare C program, a naive loop and the JavaScript SDK against one canned server on loopback,
# interleaved and pinned to one CPU, and prints medians, ratios and the targets.
#
#   sh bench/run.sh            RUNS=9        runs of each, the median counts
#                              JS=1          npm installs the SDK into the build folder when it is not there
#                              WORKLOADS="start get concurrent pages cycle"     CLIENTS="e2b luajit floor naive sdk"
#                              FLAT=100000   calls of the memory check, 0 leaves it out
#                              PARTS="platform inside nginx"   inside: commands and files in a sandbox, bench/inside.sh;
#                                            nginx: a worker that calls E2B in its handlers, bench/nginx.sh
set -eu
cd "$(dirname "$0")/.."
parts=" ${PARTS:-platform inside nginx} "
other_parts() {
    for part in inside nginx; do
        case $parts in *" $part "*) sh "bench/$part.sh" ;; esac
    done
}
case $parts in
*" platform "*) ;;
*)
    other_parts
    exit ;;
esac
. bench/common.sh
runs=${RUNS:-9}
flat=${FLAT:-100000}
workloads=${WORKLOADS:-start get concurrent pages cycle}
wanted=${CLIENTS:-e2b luajit floor naive sdk}
pages=200

pin
nginx=$(command -v nginx || { [ -x /usr/sbin/nginx ] && echo /usr/sbin/nginx; } || true)
[ -n "$nginx" ] || fail "nginx is needed (Debian: apt-get install nginx-light)"
lua51=$(command -v lua5.1 || true)

${CC:-cc} -O2 -Wall -Wextra -o "$out/runner" bench/runner.c
# shellcheck disable=SC2046,SC2086 # lists of flags
${CC:-cc} -O2 -Wall -Wextra ${CURL_CFLAGS:-} -o "$out/floor" bench/floor.c ${CURL_LIBS:-$(pkg-config --libs libcurl)}

# who can run here
clients=
for client in $wanted; do
    case $client in
    e2b)
        ready_e2b
        clients="$clients e2b" ;;
    luajit) ready_luajit && clients="$clients luajit" ;;
    floor) clients="$clients floor" ;;
    naive)
        if [ -n "$lua51" ] && "$lua51" -e 'require("curl") require("cjson")' 2>/dev/null; then
            clients="$clients naive"
        else
            leave_out naive "needs lua5.1 with lua-curl and lua-cjson: apt-get install lua5.1 lua-curl lua-cjson"
        fi ;;
    sdk) ready_sdk && clients="$clients sdk" ;;
    *) fail "no client $client" ;;
    esac
done

port=$("$out/runner" --port)
"$lua" bench/canned.lua "$out" "$port" "$pages"
"$out/runner" --tied "$nginx" -p "$out" -e "$out/error.log" -c "$out/nginx.conf" &
server=$!
url=http://127.0.0.1:$port
tries=0
until "$out/floor" "$url" start 1 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -gt 50 ] || ! kill -0 "$server" 2>/dev/null; then
        fail "nginx did not start: $(tail -n 3 "$out/error.log")"
    fi
    sleep 0.1
done

one_environment

measure() { # client workload count: "wall cpu rss"
    case $1 in
    e2b) LUA_CPATH="$root/build/5.4/?.so;;" "$out/runner" "$lua" bench/client.lua "$url" "$2" "$3" ;;
    luajit) LUA_CPATH="$root/build/luajit/?.so;;" "$out/runner" "$luajit" bench/client.lua "$url" "$2" "$3" ;;
    floor) "$out/runner" "$out/floor" "$url" "$2" "$3" ;;
    naive) "$out/runner" "$lua51" bench/naive.lua "$url" "$2" "$3" ;;
    sdk) "$out/runner" "$node" bench/sdk.js "$url" "$2" "$3" ;;
    esac
}

: >"$out/results"
run=1
while [ "$run" -le "$runs" ]; do
    for workload in $workloads; do
        case $workload in
        start) count=1 ;;
        pages) count=$pages ;;
        cycle) count=500 ;;
        *) count=1000 ;;
        esac
        for client in $clients; do
            [ "$client $workload" != "naive concurrent" ] || continue # lua-curl has no multi
            cost=$(measure "$client" "$workload" "$count") || fail "$client failed at $workload"
            echo "$workload $client $cost" >>"$out/results"
        done
    done
    say "run $run of $runs"
    run=$((run + 1))
done

: >"$out/flat"
if [ "$flat" -gt 0 ]; then
    for client in $clients; do
        case $client in
        e2b) set -- "$root/build/5.4" "$lua" ;;
        luajit) set -- "$root/build/luajit" "$luajit" ;;
        *) continue ;;
        esac
        line=$(LUA_CPATH="$1/?.so;;" "$2" bench/client.lua "$url" flat "$flat") || fail "$client failed at flat"
        echo "$client $line" >>"$out/flat"
    done
fi

echo "$(uname -sm), $("$nginx" -v 2>&1 | sed 's/.*: //'), libcurl $(pkg-config --modversion libcurl)"
"$lua" -v 2>&1 | cut -d' ' -f1-2
case " $clients " in *" luajit "*) "$luajit" -v 2>&1 | cut -d' ' -f1-2 ;; esac
case " $clients " in *" naive "*)
    "$lua51" -e 'print(("%s, lua-curl on %s, lua-cjson %s"):format(_VERSION, require("curl").version():match("%S+ %S+"),
        require("cjson")._VERSION))' ;;
esac
case " $clients " in *" sdk "*) version_of_sdk ;; esac
"$lua" bench/report.lua "$out/results" "$out/flat"

stop
unpin
other_parts
