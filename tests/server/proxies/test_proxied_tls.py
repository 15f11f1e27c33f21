"""Both proxies: TLS and the versions of HTTP."""

import ssl
import subprocess

import pytest

from tests.support.machine import NEEDS_MACHINE
from tests.support.proxied import Site, curl
from tests.support.visitor import DOMAIN

pytestmark = NEEDS_MACHINE


def test_tls_is_1_2_or_1_3_and_speaks_http_2(site: Site) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with site.tls(minimum_version=version, maximum_version=version) as stream:
            assert stream.selected_alpn_protocol() == "h2"
            assert stream.version() == version.name.replace("_", ".")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_older_tls_is_refused(site: Site, version: str) -> None:
    handshake = subprocess.run(
        [
            *("openssl", "s_client", version, "-cipher", "ALL:@SECLEVEL=0"),
            *("-servername", DOMAIN, "-connect", f"{site.address}:443"),
        ],
        input=b"",
        capture_output=True,
        check=False,
    )
    assert b"alert protocol version" in handshake.stderr


def test_keys_are_exchanged_as_quantum_computers_need_it(site: Site) -> None:
    post_quantum = ("--curves", "X25519MLKEM768")
    if site.suite == "trixie":
        assert curl(site, *post_quantum) == ['{"status":"ok"}']
    assert curl(site, "--curves", "X25519") == ['{"status":"ok"}']


def test_a_page_comes_over_each_version_of_http(site: Site) -> None:
    wanted = {"--http1.1": "1.1", "--http2": "2"}
    if (site.proxy, site.suite) == ("nginx", "trixie"):
        wanted["--http3-only"] = "3"
    for option, version in wanted.items():
        write_out = (
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code} %header{server}",
        )
        server = {"nginx": "nginx", "apache": "Apache"}[site.proxy]
        assert curl(site, option, *write_out, path="/") == [f"{version} 200 {server}"]
