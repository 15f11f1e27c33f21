"""The team has a logo."""

from pathlib import Path

OWNER = "team"


def edit(service: Path) -> None:
    (service / "app/static/logo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\xff" * 99)
