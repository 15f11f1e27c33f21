# shellcheck shell=sh
# Shared by the commands in these folders; $service is set by the caller.

# shellcheck disable=SC2154
value() { # KEY [FOLDER]: print an answer from service.toml
  sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "${2:-$service}/service.toml"
}
# shellcheck disable=SC2034
name=$(value slug)
PATH=$PATH:/usr/sbin:/sbin

step() { printf '==> %s\n' "$*"; }
log() { printf '%s\n' "$@" >&2; }
fail() { # print what happened and how to fix it, a line each, then exit
  printf '\n' >&2
  log "$@"
  exit 1
}
require_root() { # ARGUMENTS of the command
  [ "$(id -u)" = 0 ] || fail "This needs root: sudo $0 $*"
}

settings_lines() { # FILE: print its lines as the service reads them: no byte-order mark, stripped
  LC_ALL=C sed '1s/^\xef\xbb\xbf//; s/^[[:space:]]*//; s/[[:space:]]*$//' "$1"
}
allowed_hosts() { # SETTINGS: print what the worker may reach: hosts, addresses, networks or any
  settings_lines "$1" | sed -n "s~^APP_\(MAIL\|DATABASE\|REDIS\|UPLOADS\)_URL=[\"']\{0,1\}[A-Za-z0-9+]*://\(.*@\)\{0,1\}\(\[[0-9a-f:]*\]\|[^]:/?#\"'[]*\).*~\3~p"
  value domain # the worker checks the certificate that visitors get
  [ ! -f "$service/app/hosts.txt" ] || settings_lines "$service/app/hosts.txt" | sed 's/#.*//'
}
missing_packages() { # PACKAGE...: print those that are not installed
  for package; do
    [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" = 'install ok installed' ] ||
      printf ' %s' "$package"
  done
}
retry() { # TIMES COMMAND...: run it every 0.2 s until it succeeds
  times=$1
  shift
  until "$@" >/dev/null 2>&1; do
    times=$((times - 1))
    [ "$times" -gt 0 ] || return 1
    sleep 0.2
  done
}
