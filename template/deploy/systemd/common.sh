# shellcheck shell=sh
# Shared by the commands in this folder: paths, units, uv.

service=$(cd "$(dirname "$0")/../.." && pwd -P)
# shellcheck source=../common.sh
. "$service/deploy/common.sh"
home=/srv/$name
settings=/etc/$name/env.production
umask 022

require_root "$@"

current() { # print the current release, or nothing
  basename "$(readlink "$home/current" || true)"
}
units() { # RELEASE: install its systemd units
  cp -r "$home/releases/$1/deploy/systemd/$name@"* /etc/systemd/system/
  systemctl daemon-reload
}
flask() { # RELEASE COMMAND: run it with the service's account and settings
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
find_uv() { # sets $uv: the machine's, or one installed in the version of bin/uv
  version=$(sed -n 's/^version=//p' "$service/bin/uv")
  # shellcheck source=../../bin/installers.sh
  . "$service/bin/installers.sh"
  uv=$(machine_uv "$service" || echo "$home/.uv/bin/uv")
  [ "$uv" != "$home/.uv/bin/uv" ] || ls -d "$home"/.uv/lib/*/site-packages/"uv-$version.dist-info" >/dev/null 2>&1 ||
    { { [ -x "$home/.uv/bin/pip" ] || python3 -m venv "$home/.uv"; } && "$home/.uv/bin/pip" install --quiet "uv==$version"; } || [ -x "$uv" ] ||
    fail "uv $version, which installs packages, could not be installed; the reason is above." "$certificate_advice"
}
