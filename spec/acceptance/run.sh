#!/bin/sh
# Runs E2B's official SDKs, an old release and the newest of each, against the local server.
# They are installed from npm and PyPI by name into build/acceptance, once. Variables: LUA (lua5.4), JS_VERSIONS and
# PY_VERSIONS (versions, or `latest`; empty for none), NODE (node), PYTHON (python3).
set -u
root=$(cd -- "$(dirname -- "$0")/../.." && pwd -P) || exit 1
work=$root/build/acceptance
lua=${LUA:-lua5.4}
node=${NODE:-node}
python=${PYTHON:-python3}
js_versions=${JS_VERSIONS-2.45.0 latest}
py_versions=${PY_VERSIONS-2.45.0 latest}
key=e2b_0123456789abcdef0123456789abcdef01234567
mkdir -p "$work" || exit 1

pids=
stop() {
  for pid in $pids; do kill "$pid" 2>/dev/null; done
  # Each has to be gone before this script is.
  for pid in $pids; do wait "$pid" 2>/dev/null; done
}
trap stop EXIT
trap 'exit 130' INT TERM

# Starts a server; its address ends up in $url.
serve() {
  out=$work/server.$$.out
  : >"$out"
  "$lua" "$root/bin/e2b-server" --port 0 --quiet --api-key "$key" "$@" >"$out" &
  pids="$pids $!"
  tries=0
  url=
  while [ -z "$url" ]; do
    url=$(sed -n 's/^listening on //p' "$out")
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ]; then
      echo "the server did not start" >&2
      exit 1
    fi
    [ -n "$url" ] || sleep 0.1
  done
  rm -f "$out"
}

failed=0

# Each SDK gets servers of its own, so that no run sees another's sandboxes or limits.
with_servers() {
  pids=
  serve
  main=$url
  serve --rate-limit 2/2
  limited=$url
  serve --max-sandboxes 1
  quota=$url
  env -u E2B_DOMAIN -u E2B_DEBUG E2B_API_URL="$main" E2B_SANDBOX_URL="$main" E2B_API_KEY="$key" LIMITED_URL="$limited" \
    QUOTA_URL="$quota" "$@" || failed=1
  stop
  pids=
}

for version in $js_versions; do
  at=$work/js-$version
  mkdir -p "$at"
  if [ "$version" = latest ] || [ ! -d "$at/node_modules/e2b" ]; then
    npm install --silent --no-audit --no-fund --prefix "$at" "e2b@$version" || exit 1
  fi
  # Imports are looked up from where the script lies.
  cp "$root/spec/acceptance/sdk.mjs" "$at/sdk.mjs"
  real=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$at/node_modules/e2b/package.json")
  with_servers env SDK_VERSION="$real" "$node" "$at/sdk.mjs"
  cp "$root/spec/acceptance/inside.mjs" "$at/inside.mjs"
  with_servers env SDK_VERSION="$real" "$node" "$at/inside.mjs"
done

for version in $py_versions; do
  at=$work/py-$version
  wanted=e2b==$version
  if [ "$version" = latest ]; then
    wanted=e2b
    rm -rf "$at"
  fi
  if [ ! -d "$at/e2b" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --target "$at" "$wanted" 2>"$at.log" || {
      cat "$at.log" >&2
      exit 1
    }
  fi
  real=$(PYTHONPATH="$at" "$python" -c 'import importlib.metadata as m; print(m.version("e2b"))')
  with_servers env PYTHONPATH="$at" SDK_VERSION="$real" "$python" "$root/spec/acceptance/sdk.py"
  with_servers env PYTHONPATH="$at" SDK_VERSION="$real" "$python" "$root/spec/acceptance/inside.py"
done

exit "$failed"
