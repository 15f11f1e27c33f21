"""The service as the commands in this folder see it: its names, its paths, its proxy.

They run with certbot's own Python, whose packages they use: see requirements.txt.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVICE = Path(__file__).resolve().parents[2]
with (SERVICE / "service.toml").open("rb") as answers:
    ANSWERS = tomllib.load(answers)
SLUG, DOMAIN = ANSWERS["slug"], ANSWERS["domain"]
NAMES: list[str] = [DOMAIN, *ANSWERS["edge"]["aliases"]]
PROXY: str = ANSWERS["edge"]["proxy"]
PROGRAM = {"nginx": "nginx", "apache": "apache2"}[PROXY]

CERTBOT = Path("/opt/certbot/bin/certbot")
CERTBOT_MISSING = f"{CERTBOT} is missing. deploy/systemd/install installs it."
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
