# shellcheck shell=sh
# The environment of uv, pip and pip-audit, and which uv to use.

# They must trust this machine's certificate authorities: their own lists don't include the
# authority of a TLS-inspecting proxy. Your own settings win.
store=${SSL_CERT_FILE:-}
# Debian, Fedora, Alpine and BSD, SUSE.
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
    /etc/ssl/cert.pem /etc/ssl/ca-bundle.pem; do
    [ -n "$store" ] || [ ! -s "$file" ] || store=$file
done
if [ -n "$store" ]; then # else they use their own lists
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
    export UV_NATIVE_TLS="${UV_NATIVE_TLS:-$UV_SYSTEM_CERTS}" # its name before uv 0.11
    # macOS stores its authorities elsewhere; pip finds them by itself.
    [ "$(uname)" = Darwin ] || export REQUESTS_CA_BUNDLE="${REQUESTS_CA_BUNDLE:-${CURL_CA_BUNDLE:-$store}}"
fi
# People, JupyterHub, devcontainers and images set these for all projects. This service's
# scripts look for its packages in its own .venv and .uv.
export PIP_USER=0
unset PIP_TARGET PIP_PREFIX UV_PROJECT_ENVIRONMENT
# Advice to print when a download fails.
# shellcheck disable=SC2034
certificate_advice="If a certificate was rejected, your network's proxy may use its own certificate authority. Get \
its certificate, then set SSL_CERT_FILE to a file with it, or add it to this machine (Debian: as a .crt file in \
/usr/local/share/ca-certificates, then update-ca-certificates)."

# Print the path of an installed uv, if it is new enough for FOLDER/pyproject.toml.
machine_uv() { # FOLDER
    command -v uv >/dev/null || return 1
    machine_uv_is=$(uv --version 2>/dev/null) || return 1
    machine_uv_is=${machine_uv_is#uv }
    printf '%s\n' "$(sed -n 's/^required-version = ">=\([0-9.]*\)".*/\1/p' "$1/pyproject.toml")" \
        "${machine_uv_is%% *}" | sort -C -t. -k1,1n -k2,2n -k3,3n || return 1
    command -v uv
}
