"""The team may run one of the app's modules."""

from pathlib import Path

OWNER = "team"


def edit(service: Path) -> None:
    (service / "app/permissions.py").chmod(0o755)
