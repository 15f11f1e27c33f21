# shellcheck shell=sh

# Print the path of an installed uv, if it is new enough for FOLDER/pyproject.toml.
machine_uv() { # FOLDER
    command -v uv >/dev/null || return 1
    machine_uv_is=$(uv --version 2>/dev/null) || return 1
    machine_uv_is=${machine_uv_is#uv }
    printf '%s\n' "$(sed -n 's/^required-version = ">=\([0-9.]*\)".*/\1/p' "$1/pyproject.toml")" \
        "${machine_uv_is%% *}" | sort -C -t. -k1,1n -k2,2n -k3,3n || return 1
    command -v uv
}
