"""Runs certbot, and explains its errors: what is wrong and how to fix it."""

import re
import socket
from ipaddress import ip_address
from pathlib import Path

from proxy import port_problems, serves_challenges
from service import (
    ARCHIVE,
    CERTBOT,
    CERTBOT_MISSING,
    EDGE,
    LIVE,
    PROXY,
    Problem,
    execute,
)

LOG = Path("/var/log/letsencrypt/letsencrypt.log")


def run_certbot(*arguments: str) -> None:
    """Run certbot; if it fails, raise a Problem that explains why."""
    if not CERTBOT.exists():
        raise Problem(CERTBOT_MISSING)
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


def explain(output: str) -> list[str]:
    """Explain certbot's output: what is wrong and how to fix it."""
    names = re.findall(r"Identifier: (\S+)\n\s+Type: +(\S+)\n\s+Detail: (.*)", output)
    if names:
        return [line for name in names for line in explain_validation(*name)]
    log = LOG.read_text() if str(LOG) in output and LOG.exists() else ""
    for pattern, lines in MEANINGS.items():
        if found := re.search(pattern, output + log):
            return [line.format(*found.groups()) for line in lines]
    return ["certbot failed. Its output:", output.strip()]


def explain_validation(name: str, kind: str, detail: str) -> list[str]:
    """Explain why validation failed for a name, as far as this machine can see."""
    lines = [f"The authority could not verify that {name} is yours. Its message:"]
    lines.append(f"  {detail}")
    if kind == "caa":
        return [*lines, f"In DNS, a CAA record of {name} must allow this authority."]
    found = addresses(name)
    if kind in {"dns", "dnssec"} or not found:
        return [*lines, f"In DNS, {name} needs an A record with this server's address."]
    if not EDGE.is_dir() and (problems := port_problems(80)):
        return lines + problems
    if not EDGE.is_dir() and not serves_challenges(name):
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
