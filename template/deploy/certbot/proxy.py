"""The proxy: whether it serves the certificate and certbot's challenges."""

import re
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

from certificate import Certificate, read_certificate
from service import EDGE, NAMES, PROGRAM, PROXY, SERVICE, WEBROOT, Problem, execute


def deploy() -> None:
    """Make the proxy serve the certificate on disk, and check that it does."""
    certificate = read_certificate()
    apply()
    for _ in wait(10):
        problems = not_served(certificate)
        if not problems:
            return
    raise Problem(*problems, *([] if EDGE.is_dir() else port_problems(443)))


def apply() -> None:
    """Make the proxy load the site and the certificate, if it accepts them."""
    if EDGE.is_dir():
        request_apply()
        return
    command = SERVICE / "deploy" / PROXY / "apply"
    done = execute(command)
    if done.returncode:
        raise Problem(done.stdout.strip())


def request_apply() -> None:
    """Send a request to the proxy's container, and wait for the response."""
    done, failed = EDGE / "done", EDGE / "failed"
    for response in (done, failed):
        response.unlink(missing_ok=True)
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


def serves_challenges(name: str) -> bool:
    """Return whether the proxy serves files that certbot writes to the webroot."""
    folder = WEBROOT / ".well-known/acme-challenge"
    folder.mkdir(parents=True, exist_ok=True)
    proof = folder / str(uuid4())
    proof.write_text(proof.name)
    url = f"http://127.0.0.1/.well-known/acme-challenge/{proof.name}"
    try:
        # Ignore http_proxy: a company's proxy can't reach this machine's loopback.
        direct = build_opener(ProxyHandler({}))
        with direct.open(Request(url, headers={"Host": name}), timeout=5) as response:
            return bool(response.read() == proof.name.encode())
    except OSError:
        return False
    finally:
        proof.unlink()


def port_problems(port: int) -> list[str]:
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


def wait(seconds: float) -> Iterator[None]:
    """Yield ten times a second until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.1)
