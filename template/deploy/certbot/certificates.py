"""Shared by the commands in this folder: the certificate, the proxy, certbot.

Standard library only: they run with the system's Python, on a server or in a container.
"""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import tomllib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import ProxyHandler, Request, build_opener, urlopen
from uuid import uuid4

SERVICE = Path(__file__).resolve().parents[2]
with (SERVICE / "service.toml").open("rb") as answers:
    ANSWERS = tomllib.load(answers)
SLUG, DOMAIN = ANSWERS["slug"], ANSWERS["domain"]
NAMES: list[str] = [DOMAIN, *ANSWERS["edge"]["aliases"]]
PROXY: str = ANSWERS["edge"]["proxy"]
PROGRAM = {"nginx": "nginx", "apache": "apache2"}[PROXY]

CERTBOT = Path("/opt/certbot/bin/certbot")
LOG = Path("/var/log/letsencrypt/letsencrypt.log")
WEBROOT = Path("/var/www/letsencrypt")
LIVE = Path("/etc/letsencrypt/live", DOMAIN)
ARCHIVE = Path("/etc/letsencrypt/archive", DOMAIN)
RENEWAL = Path("/etc/letsencrypt/renewal", f"{DOMAIN}.conf")
# Exists only in containers. The proxy runs in another one and gets requests through it.
EDGE = Path("/run/edge")

LETSENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


class Problem(Exception):  # noqa: N818
    """An error for the user: what happened and how to fix it, a line each."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))


def run(command: Callable[[], None]) -> None:
    """Run a command; on a Problem, print it and exit with 1."""
    os.umask(0o022)
    if os.geteuid() and not EDGE.is_dir():
        sys.exit(f"This needs root, which owns the certificates: sudo {sys.argv[0]}")
    try:
        command()
    except Problem as problem:
        sys.exit(str(problem))


# --- The certificate ------------------------------------------------------------------


class Certificate(NamedTuple):
    """The certificate on disk, for the proxy to serve."""

    der: bytes
    names: list[str]
    issuer: str
    start: datetime
    end: datetime
    ari: str  # its identifier at the authority: RFC 9773, 4.1

    def share_left(self) -> float:
        """Return the share of its lifetime left: 1 when new, 0 or less when expired."""
        return (self.end - datetime.now(UTC)) / (self.end - self.start)


def read() -> Certificate:
    """Read this service's certificate, and check that its key matches."""
    chain, key = LIVE / "fullchain.pem", LIVE / "privkey.pem"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        return parse(chain.read_text())
    except FileNotFoundError:
        what = f"There is no certificate with its key in {LIVE}."
    except ssl.SSLError as error:
        what = f"The certificate or the key in {LIVE} is damaged."
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"Certificate and key in {LIVE} do not match."
    except OSError as error:
        raise Problem(f"{LIVE} cannot be read: {error.strerror}.") from None
    raise Problem(what, "To get a new one: deploy/certbot/issue")


def parse(chain: str) -> Certificate:
    """Parse the first certificate of a chain."""
    shown = ("-serial", "-issuer", "-nameopt", "RFC2253,utf8", "-startdate", "-enddate")
    extensions = ("-ext", "subjectAltName,authorityKeyIdentifier")
    text = execute("openssl", "x509", "-noout", *shown, *extensions, input=chain).stdout
    values = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    start, end = (
        datetime.fromtimestamp(ssl.cert_time_to_seconds(values[edge]), UTC)
        for edge in ("notBefore", "notAfter")
    )
    authority = re.search(r"Authority Key Identifier:.*\s+([0-9A-F:]+)", text)
    serial = int(values["serial"], 16)
    identity = (
        bytes.fromhex(authority[1].replace(":", "") if authority else ""),
        serial.to_bytes(serial.bit_length() // 8 + 1, "big"),  # with a sign bit
    )
    last = "-----END CERTIFICATE-----"
    return Certificate(
        ssl.PEM_cert_to_DER_cert(chain.partition(last)[0] + last),
        re.findall(r"DNS:([^,\s]+)", text),
        values["issuer"],
        start,
        end,
        ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in identity),
    )


def renewal(certificate: Certificate) -> tuple[datetime, datetime | None]:
    """Return when to renew: the authority's window (RFC 9773) or certbot's default."""
    try:
        directory = fetch(remembered()["server"])
        url = f"{directory['renewalInfo'].rstrip('/')}/{certificate.ari}"
        window = fetch(url)["suggestedWindow"]
        start, end = (datetime.fromisoformat(window[edge]) for edge in ("start", "end"))
    except (KeyError, OSError, ValueError):  # no ARI, or no answer
        life = certificate.end - certificate.start
        # https://eff-certbot.readthedocs.io/en/stable/using.html#renewing-certificates
        age = life / 2 if life < timedelta(days=10) else life * 2 / 3
        return certificate.start + age, None
    return start, end


def fetch(url: str) -> Any:
    """Fetch a public resource of an authority."""
    with urlopen(url, timeout=5) as answer:  # noqa: S310
        return json.load(answer)


def remembered() -> dict[str, str]:
    """Return the settings with which certbot renews the certificate."""
    try:
        settings = RENEWAL.read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^(\w+) = (.*)$", settings, re.MULTILINE))


def mend() -> None:
    """Restore the last version of the certificate that certbot wrote completely.

    On a full disk certbot leaves empty files, and its next run installs them like a
    certificate. No proxy would start with them.
    """
    kinds = ("privkey", "cert", "chain", "fullchain")
    paths = ARCHIVE.glob("privkey*.pem")
    numbers = sorted(int(path.stem.removeprefix("privkey")) for path in paths)
    last = next(filter(whole, reversed(numbers)), None)
    if last is None or last == numbers[-1]:
        return
    for kind in kinds:
        for number in range(last + 1, numbers[-1] + 1):
            (ARCHIVE / f"{kind}{number}.pem").unlink(missing_ok=True)
        link = LIVE / f"{kind}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{DOMAIN}/{kind}{last}.pem")


def whole(number: int) -> bool:
    """Return whether a version of the certificate exists and its key matches."""
    chain, key = (ARCHIVE / f"{kind}{number}.pem" for kind in ("fullchain", "privkey"))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    except (FileNotFoundError, ssl.SSLError):
        return False
    return True


# --- The proxy ------------------------------------------------------------------------


def deploy() -> None:
    """Make the proxy serve the certificate on disk, and check that it does."""
    certificate = read()
    apply()
    for _ in wait(10):
        problems = not_served(certificate)
        if not problems:
            return
    raise Problem(*problems, *([] if EDGE.is_dir() else holders(443)))


def apply() -> None:
    """Make the proxy load the site and the certificate, if it accepts them."""
    if EDGE.is_dir():
        ask()
        return
    command = SERVICE / "deploy" / PROXY / "apply"
    done = execute(command)
    if done.returncode:
        raise Problem(done.stdout.strip())


def ask() -> None:
    """Send a request to the proxy's container, and wait for the response."""
    done, failed = EDGE / "done", EDGE / "failed"
    for answer in (done, failed):
        answer.unlink(missing_ok=True)
    (EDGE / "wanted").touch()
    for _ in wait(30):
        if done.exists():
            return
        if failed.exists():
            raise Problem(failed.read_text().strip())
    raise Problem("The proxy's container did not answer within 30 s; see its log.")


def not_served(certificate: Certificate) -> list[str]:
    """Return a line for each name that is not served with this certificate."""
    problems = []
    for name in NAMES:
        if name not in certificate.names:
            problems.append(f"The certificate lacks {name}: deploy/certbot/issue")
            continue
        der = served(name)
        if der is None and not EDGE.is_dir():  # in a container, names may not resolve
            problems.append(f"{PROXY} does not answer as {name} on port 443.")
        elif der not in {None, certificate.der}:
            problems.append(f"{PROXY} still serves another certificate as {name}.")
    return problems


def served(name: str) -> bytes | None:
    """Return the certificate that is served for a name, or None without an answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the caller compares it
    address = (name if EDGE.is_dir() else "127.0.0.1", 443)
    try:
        with (
            socket.create_connection(address, timeout=5) as connection,
            context.wrap_socket(connection, server_hostname=name) as tls,
        ):
            return tls.getpeercert(binary_form=True)
    except OSError:
        return None


def wait(seconds: float) -> Iterator[None]:
    """Yield ten times a second until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.1)


# --- certbot and its errors -----------------------------------------------------------


def certbot(*arguments: str) -> None:
    """Run certbot; if it fails, raise a Problem that explains why."""
    if not CERTBOT.exists():
        raise Problem(f"{CERTBOT} is missing. deploy/systemd/install installs it.")
    done = execute(CERTBOT, "--non-interactive", *arguments, cwd="/")
    if done.returncode:
        raise Problem(*explain(done.stdout), f"certbot's full log: {LOG}")


# Explanations and fixes for certbot's messages and ACME error types (RFC 8555, 6.7).
MEANINGS = {
    r"Another instance of Certbot": [
        "certbot is already running, maybe started by its timer.",
        "Run this again in a few minutes.",
    ],
    r"No space left on device": [
        "A disk is full: df -h shows which one.",
        "Free some space, then run this again.",
    ],
    r"(?:live|archive) directory exists": [
        f"certbot did not create {LIVE}, so it does not change it.",
        f"Move it and {ARCHIVE} elsewhere, then run this again.",
    ],
    r"error:rateLimited :: .*? :: (.*)": [
        "The authority's rate limit is exceeded. Its message:",
        "  {0}",
        "Wait until then, or an hour if it names no time. For tests, use --staging.",
    ],
    r"error:caa :: .*? :: (.*)": [
        "A CAA record in DNS forbids this authority to issue. Its message:",
        "  {0}",
        'Add a CAA record that allows it, like: CAA 0 issue "letsencrypt.org"',
    ],
    r"error:rejectedIdentifier :: .*? :: (.*)": [
        "The authority does not issue certificates for this name. Its message:",
        "  {0}",
        "Check that the domain in service.toml is yours.",
    ],
    r"Failed to resolve|Name or service not known|failure in name resolution": [
        "This machine can't resolve the authority's name: its DNS server fails.",
        "Check the name servers in /etc/resolv.conf.",
    ],
    r"CERTIFICATE_VERIFY_FAILED": [
        "This machine does not trust the authority's TLS certificate.",
        "Check the clock (date). For your own authority, set REQUESTS_CA_BUNDLE=FILE.",
    ],
    r"Max retries exceeded|Connection aborted|Read timed out": [
        "The authority does not answer.",
        "Check that no firewall blocks outgoing port 443, or try again later.",
    ],
    r"error:serverInternal|<Response \[5\d\d\]>": [
        "The authority has an internal error. Try again later.",
        "The status of Let's Encrypt: https://letsencrypt.status.io",
    ],
}


def explain(words: str) -> list[str]:
    """Explain certbot's output: what is wrong and how to fix it."""
    names = re.findall(r"Identifier: (\S+)\n\s+Type: +(\S+)\n\s+Detail: (.*)", words)
    if names:
        return [line for name in names for line in unproven(*name)]
    log = LOG.read_text() if str(LOG) in words and LOG.exists() else ""
    for pattern, lines in MEANINGS.items():
        if found := re.search(pattern, words + log):
            return [line.format(*found.groups()) for line in lines]
    return ["certbot failed. Its output:", words.strip()]


def unproven(name: str, kind: str, detail: str) -> list[str]:
    """Explain why validation failed for a name, as far as this machine can see."""
    lines = [f"The authority could not verify that {name} is yours. Its message:"]
    lines.append(f"  {detail}")
    if kind == "caa":
        return [*lines, f"In DNS, a CAA record of {name} must allow this authority."]
    found = addresses(name)
    if kind in {"dns", "dnssec"} or not found:
        return [*lines, f"In DNS, {name} needs an A record with this server's address."]
    if not EDGE.is_dir() and (held := holders(80)):
        return lines + held
    if not EDGE.is_dir() and not shows_proof(name):
        return [
            *lines,
            f"{PROXY} does not serve the challenge for {name}: another site may have"
            " that name.",
        ]
    own = execute("hostname", "--all-ip-addresses").stdout.split()
    if elsewhere := sorted(found - set(own)):
        lines += [
            f"DNS returns {', '.join(elsewhere)}; this machine has {', '.join(own)}.",
            "Fix the A or AAAA record, unless that host forwards port 80 to this one.",
        ]
    return [*lines, "Firewalls must allow port 80, here and at your provider."]


def addresses(name: str) -> set[str]:
    """Return a name's addresses, as resolved on this machine."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, 80)}
    except OSError:
        return set()
    return {address for address in found if not ip_address(address).is_loopback}


def holders(port: int) -> list[str]:
    """Return which programs listen on a port, if the proxy does not."""
    listening = execute("ss", "-Hltnp", f"sport = :{port}").stdout
    programs = set(re.findall(r'\("([^"]+)",pid=', listening))
    if PROGRAM in programs:
        return []
    if not programs:
        return [f"Nothing listens on port {port}: systemctl enable --now {PROGRAM}"]
    return [
        f"Port {port} is used by {', '.join(sorted(programs))}, not by {PROGRAM}.",
        f"Stop that, then: systemctl restart {PROGRAM}",
    ]


def shows_proof(name: str) -> bool:
    """Return whether the proxy serves files that certbot writes to the webroot."""
    folder = WEBROOT / ".well-known/acme-challenge"
    folder.mkdir(parents=True, exist_ok=True)
    proof = folder / str(uuid4())
    proof.write_text(proof.name)
    url = f"http://127.0.0.1/.well-known/acme-challenge/{proof.name}"
    try:
        # Ignore http_proxy: a company's proxy can't reach this machine's loopback.
        direct = build_opener(ProxyHandler({}))
        with direct.open(Request(url, headers={"Host": name}), timeout=5) as answer:
            return bool(answer.read() == proof.name.encode())
    except OSError:
        return False
    finally:
        proof.unlink()


def execute(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; all its output is in `stdout`."""
    return subprocess.run(  # noqa: S603
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
