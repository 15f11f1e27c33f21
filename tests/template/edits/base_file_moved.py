"""The team keeps nginx's ciphers where it keeps those of its other services."""

from pathlib import Path

OWNER = "template"


def edit(service: Path) -> None:
    (service / "deploy/ciphers").mkdir()
    (service / "deploy/nginx/tls.conf").rename(service / "deploy/ciphers/tls.conf")
