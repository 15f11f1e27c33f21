# shellcheck shell=sh
# Lets uv, pip and pip-audit trust the authorities of this machine. Their own don't include
# the authority of a proxy that inspects TLS. What you set yourself stays as it is.

store=${SSL_CERT_FILE:-}
# Debian, Fedora, Alpine and BSD, SUSE.
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
    /etc/ssl/cert.pem /etc/ssl/ca-bundle.pem; do
    [ -n "$store" ] || [ ! -s "$file" ] || store=$file
done
if [ -n "$store" ]; then # without one, their own authorities are better than none
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
    export UV_NATIVE_TLS="${UV_NATIVE_TLS:-$UV_SYSTEM_CERTS}" # its name before uv 0.11
    # macOS keeps its authorities elsewhere, where pip looks by itself.
    [ "$(uname)" = Darwin ] || export REQUESTS_CA_BUNDLE="${REQUESTS_CA_BUNDLE:-${CURL_CA_BUNDLE:-$store}}"
fi
# What people, JupyterHub, devcontainers and images set for all projects: packages of this one
# belong into its own .venv and .uv, where its scripts look for them.
export PIP_USER=0
unset PIP_TARGET PIP_PREFIX UV_PROJECT_ENVIRONMENT
# What a script says when a download fails.
# shellcheck disable=SC2034
about_certificates="If a certificate was refused, a proxy may have an authority of its own. Ask for its \
certificate. Then set SSL_CERT_FILE to a file with it, or add it to this machine (Debian: as a .crt file in \
/usr/local/share/ca-certificates, then update-ca-certificates)."
