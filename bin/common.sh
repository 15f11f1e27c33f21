# shellcheck shell=sh
# What bin/new and bin/test share: short lines on what happens, Python, uv and .venv.

start=$(date +%s)

say() { # one line, with the seconds since the start
  printf '[%3d s] %s\n' "$(($(date +%s) - start))" "$*"
}

fail() { # what happened, then what to do, a line each
  printf '\n' >&2
  printf '%s\n' "$@" >&2
  exit 1
}

# Run a command with a dot every second; show what it said only if it fails.
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

find_uv() { # sets and exports $UV: the one given, the machine's, or one in .uv
  # shellcheck source=../template/bin/certificates.sh disable=SC2154  # root: the caller sets it
  . "$root/template/bin/certificates.sh"
  # shellcheck source=../template/bin/machine_uv.sh
  . "$root/template/bin/machine_uv.sh"
  UV=${UV:-$(machine_uv "$root/template" || echo "$root/.uv/bin/uv")}
  export UV
  # Without a home that can be written, uv keeps its cache here.
  [ -w "${HOME:-/nonexistent}" ] || export UV_CACHE_DIR="${UV_CACHE_DIR:-$root/.uv/cache}"
  [ ! -x "$UV" ] || return 0
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module, which uv is installed with." \
      "Install it (Debian, Ubuntu: apt-get install python3-venv) and try again."
  version=$(sed -n 's/^version=//p' "$root/template/bin/uv")
  say "uv $version, which installs packages, into .uv"
  { quietly "$python" -m venv "$root/.uv" && quietly "$root/.uv/bin/pip" install "uv==$version"; } ||
    fail "uv could not be installed. Its words are above." \
      "Check the network, any proxy, and that $root can be written; then try again." \
      "$about_certificates"
}

# Install into the checkout's .venv: uv's arguments say what.
install() {
  find_python
  find_uv
  [ -x "$root/.venv/bin/python" ] || quietly "$UV" venv --python "$python" "$root/.venv" ||
    fail "The environment $root/.venv could not be made. uv's words are above." \
      "Check that the folder can be written, then try again."
  quietly "$UV" pip "$@" --python "$root/.venv" ||
    fail "Packages could not be installed into .venv. uv's words are above." \
      "Check the network and any proxy, then try again: what is there stays." "$about_certificates"
}
