"""What the commands beside this file share: the certificate, the proxy, certbot.

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
# Only in containers: the proxy runs in another one, and is asked through this folder.
EDGE = Path("/run/edge")

LETSENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


class Problem(Exception):  # noqa: N818
    """What happened and what to do about it, a line each, for who runs a command."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))


def run(command: Callable[[], None]) -> None:
    """Run a command; when it cannot be done, say why and end with 1."""
    os.umask(0o022)
    if os.geteuid() and not EDGE.is_dir():
        sys.exit(f"Certificates and their keys are root's: sudo {sys.argv[0]}")
    try:
        command()
    except Problem as problem:
        sys.exit(str(problem))


# --- The certificate ------------------------------------------------------------------


class Certificate(NamedTuple):
    """What lies ready for the proxy."""

    der: bytes
    names: list[str]
    issuer: str
    start: datetime
    end: datetime
    ari: str  # what its authority calls it: RFC 9773, 4.1

    def share_left(self) -> float:
        """Return how much of its life is left: 1 when new, 0 or less when expired."""
        return (self.end - datetime.now(UTC)) / (self.end - self.start)


def read() -> Certificate:
    """Read the certificate of this service, and try whether its key fits."""
    chain, key = LIVE / "fullchain.pem", LIVE / "privkey.pem"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        return parse(chain.read_text())
    except FileNotFoundError:
        what = f"There is no certificate with its key in {LIVE}."
    except ssl.SSLError as error:
        what = f"The certificate in {LIVE} is damaged, or its key is."
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"Certificate and key in {LIVE} do not match."
    except OSError as error:
        raise Problem(f"{LIVE} cannot be read: {error.strerror}.") from None
    raise Problem(what, "For a new one: deploy/certbot/issue")


def parse(chain: str) -> Certificate:
    """Take from a chain's first certificate what is to know about it."""
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
        serial.to_bytes(serial.bit_length() // 8 + 1, "big"),  # and a bit for its sign
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
    """Return when it is due: the authority's wish (RFC 9773), or certbot's rule."""
    try:
        directory = fetch(remembered()["server"])
        url = f"{directory['renewalInfo'].rstrip('/')}/{certificate.ari}"
        window = fetch(url)["suggestedWindow"]
        start, end = (datetime.fromisoformat(window[edge]) for edge in ("start", "end"))
    except (KeyError, OSError, ValueError):  # it has no wish, or does not answer
        life = certificate.end - certificate.start
        # https://eff-certbot.readthedocs.io/en/stable/using.html#renewing-certificates
        age = life / 2 if life < timedelta(days=10) else life * 2 / 3
        return certificate.start + age, None
    return start, end


def fetch(url: str) -> Any:
    """Ask an authority for what it tells everybody."""
    with urlopen(url, timeout=5) as answer:  # noqa: S310
        return json.load(answer)


def remembered() -> dict[str, str]:
    """Return what certbot renews the certificate with."""
    try:
        settings = RENEWAL.read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^(\w+) = (.*)$", settings, re.MULTILINE))


def mend() -> None:
    """Go back to the last version of the certificate that certbot could write whole.

    On a full disk it leaves empty files, and its next run puts them in place as if they
    were a certificate, with which no proxy starts.
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
    """Tell whether a version of the certificate is there, and its key fits."""
    chain, key = (ARCHIVE / f"{kind}{number}.pem" for kind in ("fullchain", "privkey"))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    except (FileNotFoundError, ssl.SSLError):
        return False
    return True


# --- The proxy ------------------------------------------------------------------------


def deploy() -> None:
    """Have the proxy serve the certificate that lies ready, and see that it does."""
    certificate = read()
    apply()
    for _ in wait(10):
        problems = not_served(certificate)
        if not problems:
            return
    raise Problem(*problems, *([] if EDGE.is_dir() else holders(443)))


def apply() -> None:
    """Have the proxy take the site and the certificate, if it finds them sound."""
    if EDGE.is_dir():
        ask()
        return
    command = SERVICE / "deploy" / PROXY / "apply"
    done = execute(command)
    if done.returncode:
        raise Problem(done.stdout.strip())


def ask() -> None:
    """Ask the proxy in its container, and wait for its answer."""
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
    """Return what visitors do not get as it lies here, a line for each name."""
    problems = []
    for name in NAMES:
        if name not in certificate.names:
            problems.append(f"The certificate lacks {name}: deploy/certbot/issue")
            continue
        der = served(name)
        if (
            der is None and not EDGE.is_dir()
        ):  # from a container, names may lead nowhere
            problems.append(f"{PROXY} does not answer as {name} on port 443.")
        elif der not in {None, certificate.der}:
            problems.append(f"{PROXY} still serves another certificate as {name}.")
    return problems


def served(name: str) -> bytes | None:
    """Return the certificate that visitors get for a name, if somebody answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # whose it is, is the question
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
    """Come back again and again, until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.1)


# --- certbot, and what it means -------------------------------------------------------


def certbot(*arguments: str) -> None:
    """Run certbot; when it fails, say in plain words why."""
    if not CERTBOT.exists():
        raise Problem(f"{CERTBOT} is missing. deploy/systemd/install brings it.")
    done = execute(CERTBOT, "--non-interactive", *arguments, cwd="/")
    if done.returncode:
        raise Problem(*explain(done.stdout), f"All that certbot did: {LOG}")


# What its words and the authority's error types (RFC 8555, 6.7) mean, and what to do.
MEANINGS = {
    r"Another instance of Certbot": [
        "certbot is at work already, maybe by its timer.",
        "Run this again in some minutes.",
    ],
    r"No space left on device": [
        "A disk is full: df -h names it.",
        "Make room, then run this again.",
    ],
    r"(?:live|archive) directory exists": [
        f"certbot did not make {LIVE}, so it leaves that alone.",
        f"Move it elsewhere, {ARCHIVE} too, then run this again.",
    ],
    r"error:rateLimited :: .*? :: (.*)": [
        "The authority has been asked too often. It says:",
        "  {0}",
        "Wait until then, or an hour if it names no time. Trials belong to --staging.",
    ],
    r"error:caa :: .*? :: (.*)": [
        "DNS forbids this authority to issue for you. It says:",
        "  {0}",
        'A CAA record has to allow it, like: CAA 0 issue "letsencrypt.org"',
    ],
    r"error:rejectedIdentifier :: .*? :: (.*)": [
        "The authority has no certificates for such a name. It says:",
        "  {0}",
        "Is the domain in service.toml the one that you own?",
    ],
    r"Failed to resolve|Name or service not known|failure in name resolution": [
        "This machine finds no address for the authority: its DNS does not answer.",
        "/etc/resolv.conf names who is asked.",
    ],
    r"CERTIFICATE_VERIFY_FAILED": [
        "This machine does not trust who answers as the authority.",
        "Is its clock right (date)? For an authority of yours: REQUESTS_CA_BUNDLE=FILE",
    ],
    r"Max retries exceeded|Connection aborted|Read timed out": [
        "The authority does not answer.",
        "Does a firewall stop what goes out to port 443? If not, try again later.",
    ],
    r"error:serverInternal|<Response \[5\d\d\]>": [
        "The authority has troubles of its own. Try again later.",
        "Let's Encrypt tells about them at https://letsencrypt.status.io",
    ],
}


def explain(words: str) -> list[str]:
    """Put certbot's words in plain ones: what is wrong, and what to do."""
    names = re.findall(r"Identifier: (\S+)\n\s+Type: +(\S+)\n\s+Detail: (.*)", words)
    if names:
        return [line for name in names for line in unproven(*name)]
    log = LOG.read_text() if str(LOG) in words and LOG.exists() else ""
    for pattern, lines in MEANINGS.items():
        if found := re.search(pattern, words + log):
            return [line.format(*found.groups()) for line in lines]
    return ["certbot failed. Its words:", words.strip()]


def unproven(name: str, kind: str, detail: str) -> list[str]:
    """Say why the authority could not see that a name is ours, as far as we see it."""
    lines = [f"The authority could not see that {name} is yours. It says:"]
    lines.append(f"  {detail}")
    if kind == "caa":
        return [*lines, f"In DNS, a CAA record of {name} has to allow this authority."]
    found = addresses(name)
    if kind in {"dns", "dnssec"} or not found:
        return [*lines, f"In DNS, {name} needs an A record with this server's address."]
    if not EDGE.is_dir() and (held := holders(80)):
        return lines + held
    if not EDGE.is_dir() and not shows_proof(name):
        return [*lines, f"{PROXY} does not show it for {name}: another site's name?"]
    own = execute("hostname", "--all-ip-addresses").stdout.split()
    if elsewhere := sorted(found - set(own)):
        lines += [
            f"DNS leads to {', '.join(elsewhere)}; this machine has {', '.join(own)}.",
            "Mend the A or AAAA record, unless that passes port 80 on to this machine.",
        ]
    return [*lines, "A firewall has to let port 80 in, here and at your provider."]


def addresses(name: str) -> set[str]:
    """Return where DNS leads, as it is seen from here."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, 80)}
    except OSError:
        return set()
    return {address for address in found if not ip_address(address).is_loopback}


def holders(port: int) -> list[str]:
    """Say who has a port, when the proxy has not."""
    listening = execute("ss", "-Hltnp", f"sport = :{port}").stdout
    programs = set(re.findall(r'\("([^"]+)",pid=', listening))
    if PROGRAM in programs:
        return []
    if not programs:
        return [f"Nobody listens on port {port}: systemctl enable --now {PROGRAM}"]
    return [
        f"Port {port} is taken by {', '.join(sorted(programs))}, not by {PROGRAM}.",
        f"Stop that, then: systemctl restart {PROGRAM}",
    ]


def shows_proof(name: str) -> bool:
    """Tell whether the proxy shows what certbot puts into the webroot."""
    folder = WEBROOT / ".well-known/acme-challenge"
    folder.mkdir(parents=True, exist_ok=True)
    proof = folder / str(uuid4())
    proof.write_text(proof.name)
    url = f"http://127.0.0.1/.well-known/acme-challenge/{proof.name}"
    try:
        # The proxy of a company, which http_proxy names, is no way to this machine.
        direct = build_opener(ProxyHandler({}))
        with direct.open(Request(url, headers={"Host": name}), timeout=5) as answer:
            return bool(answer.read() == proof.name.encode())
    except OSError:
        return False
    finally:
        proof.unlink()


def execute(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; what it says is in `stdout`."""
    return subprocess.run(  # noqa: S603
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
