"""Somebody on Windows saved a template with CRLF."""

from pathlib import Path

OWNER = "team"


def edit(service: Path) -> None:
    navigation = service / "app/templates/navigation.html"
    navigation.write_bytes(navigation.read_bytes().replace(b"\n", b"\r\n"))
