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
    # shellcheck disable=SC2086 # a list of words
    (cd "$new/debs" && apt-get -qq -o APT::Sandbox::User=root download $packages) >"$new/log" 2>&1
}
# Old lists may name packages that are gone. Only root can fetch new ones.
fetch || { [ "$(id -u)" -eq 0 ] && apt-get -qq update >"$new/log" 2>&1 && fetch; } ||
    fail "these packages can't be fetched: $packages
$(sed 's/^/  /' "$new/log")
  without package lists: run apt-get update first; without the network: copy a tree's build/nginx-lua here"
for package in "$new"/debs/*.deb; do dpkg -x "$package" "$new"; done
rm -rf "$new/debs" "$new/log"
library=$(dirname "$(find "$new" -name 'libluajit*.so.2' | head -n 1)")
[ -d "$library" ] || fail "the packages hold no LuaJIT"
ln -s "${library#"$new"/}" "$new/lib"
LD_LIBRARY_PATH=$library "$new/usr/sbin/nginx" -v >"$new/version" 2>&1 || fail "its nginx does not start: $(cat "$new/version")"
touch "$new/ready"
chmod 755 "$new"
rm -rf "$folder"
mv "$new" "$folder"
echo "$folder"
