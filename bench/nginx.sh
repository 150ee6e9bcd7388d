#!/bin/sh
# One worker of nginx with Lua that calls E2B in its handlers: how long 50 calls take whose answer needs 500 ms, what
# becomes of another location meanwhile, and what the worker costs while it waits and while it doesn't. Once with the
# driver woken through the bridge, which is what the targets are for, and once with it looking every few milliseconds.
#
#   sh bench/nginx.sh          RUNS=5        bursts, the median counts         WAYS="bridge steps"
set -eu
cd "$(dirname "$0")/.."
. bench/common.sh
runs=${RUNS:-5}
ways=${WAYS:-bridge steps}

ready_luajit || exit 0
nginx=$(spec/support/get-nginx.sh "$root/build/nginx-lua") || {
    leave_out nginx "its packages are not to be had"
    exit 0
}
${CC:-cc} -O2 -Wall -Wextra -o "$out/runner" bench/runner.c
${CC:-cc} -O2 -Wall -Wextra -o "$out/probe" bench/probe.c
one_environment

# configure FOLDER PORT "http lines" "server lines"
configure() {
    rm -rf "$1"
    mkdir -p "$1"
    cat >"$1/nginx.conf" <<CONF
load_module $nginx/usr/lib/nginx/modules/ndk_http_module.so;
load_module $nginx/usr/lib/nginx/modules/ngx_http_lua_module.so;
$([ "$(id -u)" -ne 0 ] || echo "user root;")
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
env E2B_API_URL;
env E2B_API_KEY;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
  keepalive_requests 1000000;
  lua_package_path "$root/lua/?.lua;$root/lua/?/init.lua;$nginx/usr/share/lua/5.1/?.lua;;";
  lua_package_cpath "$root/build/luajit/?.so;;";
  $3
  server {
    listen 127.0.0.1:$2;
    $4
  }
}
CONF
}

front='' back=''
sweep() {
    for pid in $front $back; do kill "$pid" 2>/dev/null || true; done
    for pid in $front $back; do wait "$pid" 2>/dev/null || true; done
    front='' back=''
}
trap sweep EXIT

# serve FOLDER PORT: sets pid
serve() {
    LD_LIBRARY_PATH=$nginx/lib "$out/runner" --tied "$nginx/usr/sbin/nginx" -p "$1" -e error.log -c nginx.conf &
    pid=$!
    "$out/runner" --wait "$2" || fail "nginx did not start: $(tail -n 3 "$1/error.log")"
}

upstream=$("$out/runner" --port)
# shellcheck disable=SC2016 # nginx's variables
configure "$out/back" "$upstream" '' 'location / {
    content_by_lua_block {
      ngx.sleep(tonumber(ngx.var.uri:match("/sandboxes/%a+(%d+)") or 0) / 1000)
      local body = [[{"sandboxID":"x","templateID":"base","state":"running","clientID":"c","cpuCount":2,"memoryMB":512,"diskSizeMB":512,"startedAt":"2026-01-02T03:04:05Z","endAt":"2026-01-02T03:09:05Z","envdVersion":"0.4.0"}]]
      ngx.header.content_type = "application/json"
      ngx.header.content_length = #body
      ngx.print(body)
    }
  }'
serve "$out/back" "$upstream"
back=$pid
E2B_API_URL=http://127.0.0.1:$upstream E2B_API_KEY=e2b_0123456789abcdef0123456789abcdef01234567
export E2B_API_URL E2B_API_KEY

# Microseconds of CPU that a process has had, all of its threads.
cpu_us() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%d", sum / 1000 }'; }
woken() { cat /proc/"$1"/task/*/status | awk '/^voluntary_ctxt/ { sum += $2 } END { print sum }'; }
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
ms() { awk -v us="$1" 'BEGIN { printf "%.2f ms", us / 1000 }'; }

# cost SECONDS: "percent of a core, wake-ups a second" of the worker, in that time from now on
cost() {
    c0=$(cpu_us "$worker") w0=$(woken "$worker")
    sleep "$1"
    c1=$(cpu_us "$worker") w1=$(woken "$worker")
    awk -v c=$((c1 - c0)) -v w=$((w1 - w0)) -v s="$1" 'BEGIN { printf "%.2f %.0f\n", c / s / 1e4, w / s }'
}

echo "nginx: $("$nginx/usr/sbin/nginx" -v 2>&1 | sed 's/.*: //'), one worker, medians of $runs"
missed=0
for way in $ways; do
    port=$("$out/runner" --port)
    http='init_by_lua_block { require("e2b") }'
    [ "$way" != steps ] || http='init_by_lua_block { require("e2b") require("e2b.loop.nginx").folders = {} }'
    # shellcheck disable=SC2016 # nginx's variables
    configure "$out/front" "$port" "$http" 'location = /trivial { return 200 "trivial"; }
    location = /way { content_by_lua_block {
      local way = require("e2b.loop.nginx").woken_by()
      ngx.header.content_length = #way
      ngx.print(way)
    } }
    location ~ ^/call/(?<id>\w+)$ { content_by_lua_block {
      local sandbox, message = require("e2b").Sandbox.get_info(ngx.var.id)
      local body = sandbox and sandbox.sandbox_id or message
      ngx.status = sandbox and 200 or 502
      ngx.header.content_length = #body
      ngx.print(body)
    } }'
    serve "$out/front" "$port"
    front=$pid
    worker=$(tr -d ' ' <"/proc/$front/task/$front/children")
    "$out/probe" burst "$port" /call/x0 50 >/dev/null

    : >"$out/idle" && : >"$out/busy" && : >"$out/walls"
    run=1
    while [ "$run" -le "$runs" ]; do
        "$out/probe" latency "$port" /trivial 1.2 5000 >>"$out/idle"
        "$out/probe" latency "$port" /trivial 1.2 5000 >>"$out/busy" &
        probe=$!
        sleep 0.3
        "$out/probe" burst "$port" /call/x500 50 >>"$out/walls"
        wait "$probe"
        run=$((run + 1))
    done
    bad=$(awk '{ sum += $2 } END { print sum }' "$out/walls")
    [ "$bad" -eq 0 ] || fail "$bad calls failed: $(tail -n 3 "$out/front/error.log")"
    said=$(curl -s "http://127.0.0.1:$port/way")
    [ "$said" = "$way" ] || fail "the driver is woken by $said"

    "$out/probe" burst "$port" /call/x3500 50 >"$out/long" &
    burst=$!
    sleep 1
    waiting=$(cost 2)
    wait "$burst"
    sleep 0.5
    idle=$(cost 2)

    wall=$(cut -d' ' -f1 "$out/walls" | median)
    echo
    echo "$way"
    echo "  50 calls of 500 ms at once            $(ms "$wall")   (at most 600)"
    echo "  a trivial location, idle: p50 / p99   $(ms "$(cut -d' ' -f1 "$out/idle" | median)") / $(ms "$(cut -d' ' -f2 "$out/idle" | median)")" \
        "  (p99 $(cut -d' ' -f2 "$out/idle" | sort -n | sed -n '1p;$p' | awk '{ printf "%s%.2f", sep, $1 / 1000; sep = " to " }'))"
    echo "  the same beside the 50 calls          $(ms "$(cut -d' ' -f1 "$out/busy" | median)") / $(ms "$(cut -d' ' -f2 "$out/busy" | median)")" \
        "  (p99 $(cut -d' ' -f2 "$out/busy" | sort -n | sed -n '1p;$p' | awk '{ printf "%s%.2f", sep, $1 / 1000; sep = " to " }'))"
    echo "  CPU while 50 calls wait               ${waiting% *} % of a core, woken ${waiting#* } times a second$([ "$way" = steps ] || echo "   (below 1 %)")"
    echo "  CPU when nothing waits                ${idle% *} % of a core, woken ${idle#* } times a second   (0)"
    if [ "$way" = bridge ] && ! awk -v wall="$wall" -v waiting="${waiting% *}" -v idle="${idle% *}" \
        'BEGIN { exit !(wall < 600000 && waiting < 1 && idle < 0.05) }'; then
        missed=$((missed + 1))
        echo "  a target was missed"
    fi
    kill "$front"
    wait "$front" 2>/dev/null || true
    front=''
done
[ "$missed" -eq 0 ]
