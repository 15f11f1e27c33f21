# shellcheck shell=sh
# Shared by the commands in this folder.

step() { printf '\n==> %s\n' "$1"; }
fail() { # print what happened and how to fix it, a line each, then exit
    printf '%s\n' "$@" >&2
    exit 1
}
require_setup() { # FILE that bin/setup makes
    [ -e "$1" ] || fail "This service is not set up yet. Run bin/setup first."
}
