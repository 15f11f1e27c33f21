# shellcheck shell=sh
# Shared by bin/new and bin/test: progress messages, Python, uv and .venv.

start=$(date +%s)

say() { # print a line with the seconds since the start
  printf '[%3d s] %s\n' "$(($(date +%s) - start))" "$*"
}

fail() { # print what happened and how to fix it, a line each, then exit
  printf '\n' >&2
  printf '%s\n' "$@" >&2
  exit 1
}

# Run a command and print a dot every second; print its output only if it fails.
quietly() {
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null &
  job=$!
  trap 'kill "$job" 2>/dev/null; rm -f "$log"; exit 130' INT TERM
  tick=0
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.1
    tick=$((tick + 1))
    [ $((tick % 10)) -ne 0 ] || printf .
  done
  [ "$tick" -lt 10 ] || printf '\n'
  wait "$job" && code=0 || code=$?
  [ "$code" -eq 0 ] || cat "$log" >&2
  rm -f "$log"
  trap - INT TERM
  return "$code"
}

find_python() { # sets $python
  for name in python3 python3.13 python3.12 python3.11; do
    python=$(command -v "$name") || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
  done
  fail "No Python 3.11 or newer was found; found: $(python3 -V 2>/dev/null || echo none)." \
    "Install one (Debian, Ubuntu: apt-get install python3 python3-venv) and try again."
}

find_uv() { # sets and exports $UV: its value, the machine's uv, or one in .uv
  # shellcheck source=../template/bin/installers.sh disable=SC2154  # root: the caller sets it
  . "$root/template/bin/installers.sh"
  UV=${UV:-$(machine_uv "$root/template" || echo "$root/.uv/bin/uv")}
  export UV
  # Without a writable home folder, uv caches here.
  [ -w "${HOME:-/nonexistent}" ] || export UV_CACHE_DIR="${UV_CACHE_DIR:-$root/.uv/cache}"
  [ ! -x "$UV" ] || return 0
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module, which is needed to install uv." \
      "Install it (Debian, Ubuntu: apt-get install python3-venv) and try again."
  version=$(sed -n 's/^version=//p' "$root/template/bin/uv")
  say "Installing uv $version, the package installer, into .uv"
  { quietly "$python" -m venv "$root/.uv" && quietly "$root/.uv/bin/pip" install "uv==$version"; } ||
    fail "uv could not be installed. Its output is above." \
      "Check the network, any proxy, and that $root is writable. Then try again." \
      "$certificate_advice"
}

# Install into the checkout's .venv; the arguments go to `uv pip`.
install() {
  find_python
  find_uv
  [ -x "$root/.venv/bin/python" ] || quietly "$UV" venv --python "$python" "$root/.venv" ||
    fail "The environment $root/.venv could not be created. uv's output is above." \
      "Check that the folder is writable, then try again."
  quietly "$UV" pip "$@" --python "$root/.venv" ||
    fail "Packages could not be installed into .venv. uv's output is above." \
      "Check the network and any proxy, then try again: it continues from here." "$certificate_advice"
}
