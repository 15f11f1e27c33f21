"""The team may run the settings of gunicorn, and nobody the renewal."""

from pathlib import Path

OWNER = "template"


def edit(service: Path) -> None:
    (service / "gunicorn.conf.py").chmod(0o755)
    (service / "deploy/certbot/renew").chmod(0o644)
