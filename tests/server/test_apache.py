"""What Apache alone needs; what it shares with nginx is in proxies/."""

from collections.abc import Iterator

import pytest

from tests.support.certificates import certify
from tests.support.deployed import HOME, LIVE, NAME, Server
from tests.support.disks import installed
from tests.support.machine import NEEDS_MACHINE
from tests.support.visitor import DOMAIN

pytestmark = NEEDS_MACHINE


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    disk = installed(tmp_path_factory, request.param, "apache")
    with Server(disk, parts=["web"]) as server:
        server.certify()
        yield server


def curl(server: Server, domain: str, path: str) -> tuple[str, str]:
    """Ask from the machine itself; return the status and the body."""
    to = ("--resolve", f"{domain}:443:127.0.0.1", f"https://{domain}{path}")
    output = server.run("curl", "-sk", "-w", "\n%{http_code}", *to)
    body, _, status = output.rpartition("\n")
    return status, body


def test_nobody_on_the_machine_reads_what_visitors_ask_for(server: Server) -> None:
    status, body = curl(server, DOMAIN, "/server-status")
    assert status == "404"
    assert "Apache" not in body
    plain = server.run("curl", "-s", "http://127.0.0.1/server-status")
    assert plain.strip() == ""


def test_two_services_share_one_apache(server: Server) -> None:
    name, domain = "second", "second.bulwark-tests.net"
    home = f"/srv/{name}/current"
    server.run("mkdir", "-p", home, f"/etc/letsencrypt/live/{domain}")
    for part in ("deploy", "app", "service.toml", "public"):
        server.run("cp", "-a", f"{HOME}/current/{part}", f"{home}/{part}")
    answers = server.path(f"{home}/service.toml")
    text = answers.read_text().replace(DOMAIN, domain).replace(NAME, name)
    answers.write_text(text)
    live = f"/etc/letsencrypt/live/{domain}"
    certify(domain, *(server.path(f"{live}/{n}.pem") for n in ("fullchain", "privkey")))
    server.run(f"{home}/deploy/apache/apply")
    server.run("systemctl", "restart", "apache2")
    # The second one has files and no process.
    assert curl(server, DOMAIN, "/healthz")[0] == "200"
    assert curl(server, domain, "/healthz")[0] == "503"
    for asked, shown in ((DOMAIN, DOMAIN), (domain, domain)):
        client = (
            f"openssl s_client -connect 127.0.0.1:443 -servername {asked} </dev/null"
        )
        output = server.run("sh", "-c", f"{client} 2>&1")
        assert f"CN={shown}" in output.replace("CN = ", "CN=")
    unknown = server.attempt(
        "sh", "-c", "openssl s_client -connect 127.0.0.1:443 -servername no </dev/null"
    )
    assert unknown.returncode != 0
    assert "bulwark-tests" not in unknown.stdout


def test_another_mpm_is_left_to_who_chose_it(server: Server) -> None:
    server.run("a2dismod", "-q", "-f", "mpm_event")
    server.run("a2enmod", "-q", "mpm_prefork")
    try:
        done = server.deploy("apache/apply")
        assert done.returncode == 1
        assert "mpm_prefork" in done.stderr
        assert server.path("/etc/apache2/mods-enabled/mpm_prefork.load").exists()
    finally:
        server.run("a2dismod", "-q", "-f", "mpm_prefork")
        server.run("a2enmod", "-q", "mpm_event")
    assert server.deploy("apache/apply").returncode == 0


def test_a_key_is_needed_before_https_is_served(server: Server) -> None:
    """Without mod_ssl the port of TLS is closed, and nobody is served in the clear."""
    fresh = server.path(f"{LIVE}/fullchain.pem").rename(server.path(f"{LIVE}/away.pem"))
    try:
        done = server.deploy("apache/apply")
        assert done.returncode == 0
        assert "deploy/certbot/issue" in done.stderr
        assert server.ask("/", port=80).status == 308
    finally:
        fresh.rename(server.path(f"{LIVE}/fullchain.pem"))
    assert server.deploy("apache/apply").returncode == 0
