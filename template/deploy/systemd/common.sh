# shellcheck shell=sh
# What the commands beside it share: where things are, words, units, uv.

service=$(cd "$(dirname "$0")/../.." && pwd -P)
value() { # KEY [FOLDER]: an answer, from service.toml
  sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "${2:-$service}/service.toml"
}
name=$(value slug)
home=/srv/$name
settings=/etc/$name/env.production
PATH=$PATH:/usr/sbin:/sbin
umask 022

plain() { # FILE: its lines as the service reads them, whatever editor wrote them
  LC_ALL=C sed '1s/^\xef\xbb\xbf//; s/^[[:space:]]*//; s/[[:space:]]*$//' "$1"
}

say() { printf "==> %s\n" "$*"; }
fail() { # what happened, then what to do, a line each
  printf '\n' >&2
  printf '%s\n' "$@" >&2
  exit 1
}
[ "$(id -u)" = 0 ] || fail "This needs root: sudo $0 $*"

current() { # the release that serves, or nothing
  basename "$(readlink "$home/current" || true)"
}
units() { # RELEASE: its units are systemd's from now on
  cp -r "$home/releases/$1/deploy/systemd/$name@"* /etc/systemd/system/
  systemctl daemon-reload
}
flask() { # RELEASE COMMAND: as the service runs it, with its account and settings
  (
    cd "$home/releases/$1" || exit
    shift
    umask 077
    install -d -o "$name" -g "$name" -m 700 "/run/$name-metrics"
    exec runuser -u "$name" -- env -i PATH=/usr/bin:/bin LANG=C.UTF-8 APP_ENV=production \
      ENV_FILE="$settings" APP_METRICS_FOLDER="/run/$name-metrics" \
      APP_AUDIT_ANCHORS="/var/lib/$name/audit-anchors" .venv/bin/flask --app wsgi "$@"
  )
}
find_uv() { # sets $uv: the machine's, or one of its own, of the version in bin/uv
  version=$(sed -n 's/^version=//p' "$service/bin/uv")
  # shellcheck source=../../bin/certificates.sh
  . "$service/bin/certificates.sh"
  # shellcheck source=../../bin/machine_uv.sh
  . "$service/bin/machine_uv.sh"
  uv=$(machine_uv "$service" || echo "$home/.uv/bin/uv")
  [ "$uv" != "$home/.uv/bin/uv" ] || ls -d "$home"/.uv/lib/*/site-packages/"uv-$version.dist-info" >/dev/null 2>&1 ||
    { { [ -x "$home/.uv/bin/pip" ] || python3 -m venv "$home/.uv"; } && "$home/.uv/bin/pip" install --quiet "uv==$version"; } || [ -x "$uv" ] ||
    fail "uv $version, which installs packages, could not be installed; the reason is above." "$about_certificates"
}
