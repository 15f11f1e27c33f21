"""Somebody on Windows saved a file of the base with CRLF."""

from pathlib import Path

OWNER = "template"
CONFLICTS = ["bulwark/static/admin.css"]


def edit(service: Path) -> None:
    style = service / "bulwark/static/admin.css"
    style.write_bytes(style.read_bytes().replace(b"\n", b"\r\n"))
