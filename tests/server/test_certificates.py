"""Certificates from the first day to the last: certbot, Pebble and the timer."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from cryptography import x509

from tests.support.deployed import ALIAS, HOME, LIVE, NAME, Connection, Lender, Server
from tests.support.disks import installed
from tests.support.load import Load
from tests.support.machine import NEEDS_MACHINE
from tests.support.pebble import AUTHORITY, MACHINE, PRODUCTION, STAGING, TRUST, Pebble
from tests.support.servers import PATIENCE, eventually
from tests.support.visitor import DOMAIN

ETC = "/etc/letsencrypt"
ANSWERS = f"{HOME}/current/service.toml"
DUE = "renew_before_expiry = 9 years\n"
AS_BEFORE = f"""
while mountpoint -q {ETC}; do umount {ETC}; done
rm -rf {ETC} {ETC}.away /etc/nginx/conf.d/a.conf {HOME}/current/app/nginx/broken.conf
[ ! -e /opt/elsewhere ] || mv /opt/elsewhere /opt/certbot
cp {HOME}/repository/service.toml {HOME}/current
sed -i /{PRODUCTION}/d /etc/hosts
nft flush ruleset
{HOME}/current/deploy/nginx/apply
systemctl restart nginx
"""
# Blocks the web server for the internet.
WALL = """
table ip wall {
    chain input {
        type filter hook input priority 0;
        iifname authority tcp dport 80 reject
    }
}
"""

pytestmark = NEEDS_MACHINE


class Site(Server):
    """A server on an internet of its own: names lead to it, Let's Encrypt is there."""

    def __init__(self, disk: Path, **pebble: Any) -> None:
        """Boot a disk; the other settings are for Pebble."""
        super().__init__(disk, parts=())
        self.settings = pebble

    def booted(self) -> None:
        self.pebble = Pebble(self, **self.settings)
        self._meet()

    def _meet(self) -> None:
        self.trust = ssl.create_default_context(cadata=self.pebble.root)
        self.serials: set[str] = set()

    def reset(self) -> None:
        """Have no certificate any more, no account, and nothing that a test broke."""
        super().reset()
        self.run("sh", "-ec", AS_BEFORE)
        self.pebble.reset()
        self._meet()

    def enter(self, *command: str) -> list[str]:
        trust = (f"REQUESTS_CA_BUNDLE={TRUST}", f"SSL_CERT_FILE={TRUST}")
        return super().enter("env", *trust, *command)

    def connect(self, port: int = 443, source: str = "", name: str = DOMAIN) -> "Visit":
        connection = Visit(self, port, source or self.visitor, name)
        connection.connect()
        return connection

    def seen(self, name: str = DOMAIN) -> dict[str, Any]:
        """Return the certificate that a visitor gets, and trusts."""
        connection = self.connect(name=name)
        connection.close()
        return connection.certificate

    def serial(self, name: str = DOMAIN) -> str:
        return str(self.seen(name)["serialNumber"])

    def left(self) -> float:
        """Return how much of the certificate's life is left."""
        pem = self.path(f"{LIVE}/cert.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        begin = certificate.not_valid_before_utc
        # Its last second counts, too.
        end = certificate.not_valid_after_utc + timedelta(seconds=1)
        return (end - datetime.now(UTC)) / (end - begin)

    def certbot(self, command: str, *arguments: str) -> CompletedProcess[str]:
        return self.deploy(f"certbot/{command}", *arguments)

    def issue(self, *arguments: str) -> str:
        """Get a certificate; return its serial number as a visitor sees it."""
        done = self.certbot("issue", *arguments)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return self.serial()

    def refused(self, command: str, *arguments: str) -> str:
        """Run a command that must fail; return its error message."""
        done = self.certbot(command, *arguments)
        assert done.returncode == 1, f"{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def due(self, now: bool = True) -> None:
        """Have certbot find that it is time to renew, whenever it looks, or no more."""
        settings, line = self.path(f"{ETC}/renewal/{DOMAIN}.conf"), DUE if now else ""
        settings.write_text(line + settings.read_text().removeprefix(DUE))

    def run_by_the_timer(self) -> CompletedProcess[str]:
        unit = f"{NAME}@renew.service"
        self.attempt("systemctl", "reset-failed", unit)  # not too often for systemd
        return self.attempt("systemctl", "start", unit)

    def renew(self) -> str:
        """Do what the timer does; return the serial number that visitors see then."""
        done = self.run_by_the_timer()
        assert done.returncode == 0, self.timer_output() + self.journal("-n", "60")
        return self.serial()

    def timer_output(self) -> str:
        """Return the output of the last run by the timer."""
        unit = f"{NAME}@renew.service"
        run = self.run("systemctl", "show", "-P", "InvocationID", unit).strip()
        self.run("journalctl", "--sync")
        return self.journal(f"_SYSTEMD_INVOCATION_ID={run}")

    def unrenewed(self) -> str:
        """Do what the timer does, which must fail; return the output."""
        done = self.run_by_the_timer()
        assert done.returncode == 1, self.timer_output()
        return self.timer_output()


class Visit(Connection):
    """A connection of a client that trusts Let's Encrypt and records certificates."""

    def __init__(self, site: Site, port: int, source: str, name: str) -> None:
        address = (source, 0)
        http.client.HTTPConnection.__init__(
            self, site.address, port, PATIENCE, source_address=address
        )
        self.site, self.name = site, name
        self.certificate: dict[str, Any] = {}

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        if self.port == 443:
            tls = self.site.trust.wrap_socket(self.sock, server_hostname=self.name)
            self.sock, self.certificate = tls, tls.getpeercert() or {}
            self.site.serials.add(str(self.certificate["serialNumber"]))


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lender[Site]]:
    disk = installed(tmp_path_factory)
    with closing(Lender(lambda: Site(disk))) as lender:
        yield lender


@pytest.fixture
def site(lender: Lender[Site], request: pytest.FixtureRequest) -> Iterator[Site]:
    """Return a server whose service has two names, and no certificate."""
    with lender.lend(request.session) as site:
        yield site


# --- Good days ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "proxy"), [("bookworm", "apache"), ("trixie", "nginx")]
)
def test_a_bare_server_has_its_certificate_after_two_commands(
    tmp_path_factory: pytest.TempPathFactory,
    suite: str,
    proxy: str,
    record_property: Callable[[str, Any], None],
) -> None:
    disk = installed(tmp_path_factory, suite, proxy)  # the first command
    with Site(disk) as site:
        begin = time.monotonic()
        assert "There is no certificate" in site.refused("status")
        serial = site.issue()
        seconds = float(disk.with_suffix(".seconds").read_text())
        record_property("seconds", round(seconds + time.monotonic() - begin, 1))

        assert site.ask("/healthz").status == 200
        assert site.ask("/", port=80).headers["Location"] == f"https://{DOMAIN}/"
        key = ("openssl", "pkey", "-noout", "-text", "-in", f"{LIVE}/privkey.pem")
        assert "NIST CURVE: P-256" in site.run(*key)
        assert site.issue() == serial, "a valid certificate is not replaced"
        assert site.renew() == serial, "it is not due"
        site.due()
        assert site.renew() != serial


def test_a_name_that_is_added_later_joins_the_certificate(site: Site) -> None:
    answers = site.path(ANSWERS)
    both = answers.read_text()
    answers.write_text(both.replace(f'["{ALIAS}"]', "[]"))
    first = site.issue()
    assert site.seen()["subjectAltName"] == (("DNS", DOMAIN),)

    answers.write_text(both)
    assert f"lacks {ALIAS}" in site.refused("status")
    second = site.issue()
    assert second != first
    assert site.serial(ALIAS) == second
    visitor = site.connect(name=ALIAS)
    visitor.request("GET", "/page?x=1", headers={"Host": ALIAS})
    answer = visitor.getresponse()
    visitor.close()
    assert answer.status == 308
    assert answer.headers["Location"] == f"https://{DOMAIN}/page?x=1"


def test_a_trial_gives_way_to_the_real_one_and_never_replaces_it(site: Site) -> None:
    trial = site.issue("--staging")
    assert site.pebble.issued(STAGING) == 1
    assert site.issue("--staging") == trial
    assert site.pebble.issued() == 0

    real = site.issue()
    assert real != trial
    assert "browsers trust" in site.refused("issue", "--staging")
    assert site.issue() == real
    assert site.pebble.issued(STAGING) == site.pebble.issued() == 1


def test_status_and_a_trial_of_the_renewal_show_the_state(site: Site) -> None:
    serial = site.issue()
    before = site.run("find", ETC, "-newermt", "1970-01-01", "-name", "*.pem", "-ls")
    done = site.certbot("test-renewal")
    assert done.returncode == 0, done.stderr
    assert (site.pebble.issued(), site.pebble.issued(STAGING)) == (1, 1)
    after = site.run("find", ETC, "-newermt", "1970-01-01", "-name", "*.pem", "-ls")
    assert after == before
    assert site.serial() == serial

    done = site.certbot("status", "--json")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["names"] == [DOMAIN, ALIAS]
    assert status["served"] is True
    assert 89.9 < status["days_left"] <= 90
    assert status["share_left"] > 0.99
    # Pebble wishes for two days, a third of the life before its end.
    assert status["renewal_start"] < status["renewal_end"] < status["end"]
    assert status["problems"] == []
    output = site.certbot("status").stdout
    assert DOMAIN in output
    assert "90.0 days, 100% of its lifetime" in output

    # For another authority, the dry run uses that authority itself.
    site.issue("--server", f"https://{PRODUCTION}/dir")
    done = site.certbot("test-renewal")
    assert done.returncode == 0, done.stderr
    assert (site.pebble.issued(), site.pebble.issued(STAGING)) == (3, 1)


def test_issue_renewal_and_reload_under_load_lose_no_request(site: Site) -> None:
    answers = site.path(ANSWERS)
    both = answers.read_text()
    answers.write_text(both.replace(f'["{ALIAS}"]', "[]"))
    serials = [site.issue()]
    site.due()
    with Load(site, 8) as load:
        load.wait_for(500)
        answers.write_text(both)
        serials.append(site.issue())
        load.wait_for(500)
        serials.append(site.renew())
        load.wait_for(500)
        assert site.certbot("deployed").returncode == 0
        load.wait_for(500)
    assert load.dropped == []
    assert load.answered >= 2000
    assert len(set(serials)) == 3
    assert site.serials >= set(serials)


def test_an_authority_that_wants_an_early_renewal_gets_it(site: Site) -> None:
    first = site.issue()
    # What is revoked, Pebble wants renewed at once (RFC 9773); nothing else shows it.
    site.run(
        *("env", "-C", "/", "/opt/certbot/bin/certbot", "revoke", "-n"),
        *("--cert-name", DOMAIN, "--no-delete-after-revoke"),
    )
    status = json.loads(site.certbot("status", "--json").stdout)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert status["renewal_start"] < status["renewal_end"] < now
    assert site.renew() != first


def test_a_short_life_is_renewed_at_its_half_and_an_expired_one_at_last(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    disk = installed(tmp_path_factory)
    # What is true of 6 days is true of 40 s: certbot's rule speaks of shares.
    with Site(disk, lifetime=40, wishes=False) as site:
        first = site.issue()
        renewed = site.renew()
        assert renewed == first or site.left() < 0.5
        eventually(lambda: site.left() < 0.5)
        second = site.renew()
        assert second != first

        eventually(lambda: site.left() < 0.25)
        assert "of the certificate's lifetime is left" in site.refused("status")
        eventually(lambda: site.left() <= 0)
        assert "has expired" in site.refused("status")
        assert site.renew() != second


# --- Bad days of the first one --------------------------------------------------------


def test_a_name_that_fails_validation_is_explained(site: Site) -> None:
    dns = site.pebble.dns

    dns("set-default-ipv4", ip="")
    dns("add-a", host=DOMAIN, addresses=[MACHINE])
    output = site.refused("issue")
    assert f"{ALIAS} needs an A record" in output
    assert f" {DOMAIN} needs" not in output

    dns("set-default-ipv4", ip=AUTHORITY)
    output = site.refused("issue")
    assert f"DNS returns {AUTHORITY}; this machine has" in output
    assert f" {DOMAIN} is yours" not in output

    dns("set-default-ipv4", ip=MACHINE)
    site.write("/root/wall", WALL)
    site.run("nft", "-f", "/root/wall")
    assert "Firewalls must allow port 80" in site.refused("issue")
    site.run("nft", "delete", "table", "ip", "wall")

    site.write("/etc/nginx/conf.d/a.conf", f"server {{ server_name {ALIAS}; }}")
    site.run("systemctl", "reload", "nginx")
    assert f"does not serve the challenge for {ALIAS}" in site.refused("issue")
    site.path("/etc/nginx/conf.d/a.conf").unlink()

    site.run("systemctl", "stop", "nginx")
    assert "Nothing listens on port 80" in site.refused("issue")
    other = ("systemd-run", "-q", "--unit=other", "python3", "-m", "http.server")
    site.run(*other, "80")
    eventually(lambda: site.run("ss", "-Hltn", "sport = :80"))
    assert "Port 80 is used by python3, not by nginx" in site.refused("issue")
    site.run("systemctl", "stop", "other")
    site.run("systemctl", "start", "nginx")

    # None of it was in the way of the site as it was, nor of what came after.
    assert site.ask("/", port=80).status == 308
    site.issue()


def test_an_authority_that_does_not_issue_is_explained(site: Site) -> None:
    pebble = site.pebble
    pebble.refuse(
        "rateLimited",
        "too many certificates (5) already issued for this set of "
        "names in the last 168h0m0s, retry after 2030-01-02 03:04:05 UTC, see "
        "https://letsencrypt.org/docs/rate-limits/",
    )
    output = site.refused("issue")
    assert "rate limit is exceeded" in output
    assert "retry after 2030-01-02 03:04:05 UTC" in output
    pebble.refuse("caa", f"CAA record for {DOMAIN} prevents issuance")
    assert "Add a CAA record that allows it" in site.refused("issue")
    pebble.refuse("rejectedIdentifier", "The ACME server refuses to issue for it")
    assert "domain in service.toml" in site.refused("issue")
    pebble.relent()

    pebble.close()
    assert "The authority does not answer" in site.refused("issue")
    site.run("systemctl", "stop", "authority-pebble")
    pebble.open()
    assert "has an internal error" in site.refused("issue")
    site.run("systemctl", "stop", "authority-dns")
    assert "its DNS server fails" in site.refused("issue")
    site.path("/etc/hosts").write_text(f"{AUTHORITY} {PRODUCTION}\n")
    stranger = (
        "env",
        "-u",
        "REQUESTS_CA_BUNDLE",
        f"{HOME}/current/deploy/certbot/issue",
    )
    assert "does not trust" in site.attempt(*stranger).stderr

    issue = f"{HOME}/current/deploy/certbot/issue"
    assert "sudo" in site.attempt("runuser", "-u", "nobody", issue).stderr
    site.run("mv", "/opt/certbot", "/opt/elsewhere")
    for command in ("issue", "status", "renew"):
        assert "deploy/systemd/install installs it" in site.refused(command)
    assert site.ask("/", port=80).status == 308


def test_a_full_disk_at_the_first_issue_is_no_dead_end(site: Site) -> None:
    site.run("mkdir", "-p", ETC)
    # Enough for the account, for the key and the certificate, but not for the rest.
    site.run("mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", ETC)
    assert "A disk is full" in site.refused("issue")
    site.run("mount", "-o", "remount,size=1m", ETC)
    assert "is damaged" in site.refused("status")
    site.run("systemctl", "restart", "nginx")
    site.issue()


# --- Bad days of a renewal ------------------------------------------------------------


def test_an_authority_that_is_down_at_renewal_is_retried(site: Site) -> None:
    first = site.issue()
    site.due()
    site.pebble.close()
    assert "The authority does not answer" in site.unrenewed()
    assert "The authority does not answer" in site.refused("test-renewal")
    assert site.serial() == first
    assert site.certbot("status").returncode == 0
    site.pebble.open()
    assert site.renew() != first


def test_a_site_that_the_proxy_refuses_at_renewal_is_not_loaded(site: Site) -> None:
    first = site.issue()
    site.due()
    broken = f"{HOME}/current/app/nginx/broken.conf"
    site.write(broken, "location /test/ { proxy_pas http://127.0.0.1; }")
    output = site.refused("test-renewal")
    assert "would not serve" in output
    assert "unknown directive" in output

    output = site.unrenewed()
    assert "unknown directive" in output
    assert "still serves the previous one" in output
    assert site.serial() == first
    assert "still serves another certificate" in site.refused("status")
    # It is not due any more, and yet the timer does not let it rest.
    site.due(False)
    issued = site.pebble.issued()
    assert "unknown directive" in site.unrenewed()
    site.path(broken).unlink()
    assert site.renew() != first
    assert site.pebble.issued() == issued
    assert site.certbot("status").returncode == 0


def test_a_disk_that_is_full_at_renewal_breaks_nothing(site: Site) -> None:
    site.run("mkdir", "-p", ETC)
    site.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", ETC)
    serial = site.issue()
    # certbot writes key, certificate, chain and both of them, then its own notes;
    # each takes a page of memory.
    for pages in (2, 3, 4):
        site.due()
        used = int(site.run("df", "--output=used", ETC).split()[-1])
        site.run("mount", "-o", f"remount,size={used + 4 * pages}k", ETC)
        assert "A disk is full" in site.unrenewed()
        assert site.serial() == serial
        site.run("mount", "-o", "remount,size=1m", ETC)
        # What it could write is new, so that it finds nothing to do.
        site.due(False)
        serial = site.renew()
        site.run("systemctl", "restart", "nginx")
        assert site.serial() == serial
        assert site.certbot("status").returncode == 0
    site.due()
    assert site.renew() != serial


def test_a_certificate_that_is_gone_or_wrong_is_not_loaded(site: Site) -> None:
    first = site.issue()
    site.run("mv", ETC, f"{ETC}.away")
    for command in ("status", "deployed", "renew", "test-renewal"):
        assert "There is no certificate with its key" in site.refused(command)
    assert site.serial() == first
    site.run("mkdir", "-p", f"{LIVE}/fullchain.pem")
    for command in ("status", "deployed"):
        assert "cannot be read" in site.refused(command)
    site.run("rm", "-r", ETC)
    site.run("mv", f"{ETC}.away", ETC)
    assert site.certbot("deployed").returncode == 0

    pair = ("-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{LIVE}/privkey.pem")
    site.run("openssl", "genpkey", "-algorithm", "EC", *pair)
    for command in ("status", "deployed", "renew", "test-renewal"):
        assert "do not match" in site.refused(command)
    site.run("journalctl", "--sync")
    assert "do not match" in site.journal("-t", f"{NAME}-certificate")
    assert site.serial() == first
    assert site.issue() != first
    assert site.certbot("status").returncode == 0
