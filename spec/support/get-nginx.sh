#!/bin/sh
# Unpacks Debian's nginx with its Lua module into build/nginx-lua and prints that folder. Nothing is installed: the module
# needs a LuaJIT of its own, which can't be installed beside the usual one.
#   spec/support/get-nginx.sh [FOLDER]
# What it fetches is 1 MB, once. Needs apt-get with its package lists (apt-get update) and dpkg.
set -eu
cd "$(dirname "$0")/../.."

folder=${1:-$PWD/build/nginx-lua}
packages='nginx libnginx-mod-http-ndk libnginx-mod-http-lua lua-resty-core lua-resty-lrucache libluajit2-5.1-2'

fail() {
    echo "get-nginx: $*" >&2
    exit 1
}

if [ -e "$folder/ready" ]; then
    echo "$folder"
    exit 0
fi
for tool in apt-get dpkg; do
    command -v $tool >/dev/null 2>&1 || fail "there is no $tool: nginx with its Lua module is taken from Debian's packages"
done
mkdir -p "$(dirname "$folder")"
# Whoever comes second waits for the first; the folder appears whole.
if command -v flock >/dev/null 2>&1; then
    exec 9>"$folder.lock"
    flock 9
    if [ -e "$folder/ready" ]; then
        echo "$folder"
        exit 0
    fi
fi
new=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 130' INT TERM HUP
mkdir "$new/debs"
fetch() {
    (cd "$new/debs" && apt-get -qq -o APT::Sandbox::User=root download "$@") >"$new/log" 2>&1
}
not_fetched() {
    fail "these packages can't be fetched: $*
$(sed 's/^/  /' "$new/log")
  without package lists: run apt-get update first; without the network: copy a tree's build/nginx-lua here"
}
# shellcheck disable=SC2086 # a list of words
# Old lists may name packages that are gone. Only root can fetch new ones.
fetch $packages || { [ "$(id -u)" -eq 0 ] && apt-get -qq update >"$new/log" 2>&1 && fetch $packages; } ||
    not_fetched "$packages"
# The libraries that these need and this system doesn't have: a small one is without libpcre.
libraries=''
for package in "$new"/debs/*.deb; do
    for name in $(dpkg-deb -f "$package" Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ :]*\).*/\1/p'); do
        case " $packages $libraries " in *" $name "*) continue ;; esac
        # shellcheck disable=SC2016 # dpkg's own variable
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || libraries="$libraries $name"
    done
done
# shellcheck disable=SC2086 # a list of words
[ -z "$libraries" ] || fetch $libraries || not_fetched "$libraries"
for package in "$new"/debs/*.deb; do dpkg -x "$package" "$new"; done
rm -rf "$new/debs" "$new/log"
# One folder leads to all libraries, wherever their packages have them.
mkdir -p "$new/lib"
find "$new/usr/lib" "$new/lib" -name 'lib*.so.*' | while read -r library; do
    ln -sf "../${library#"$new"/}" "$new/lib/"
done
[ -e "$new/lib/libluajit-5.1.so.2" ] || fail "the packages hold no LuaJIT"
cat >"$new/check.conf" <<EOF
load_module $new/usr/lib/nginx/modules/ndk_http_module.so;
load_module $new/usr/lib/nginx/modules/ngx_http_lua_module.so;
error_log stderr;
pid $new/check.pid;
events { }
EOF
LD_LIBRARY_PATH=$new/lib "$new/usr/sbin/nginx" -t -e stderr -c "$new/check.conf" >"$new/check.log" 2>&1 ||
    fail "its nginx does not start: $(cat "$new/check.log")"
rm -f "$new"/check.*
touch "$new/ready"
chmod 755 "$new"
rm -rf "$folder"
mv "$new" "$folder"
echo "$folder"
