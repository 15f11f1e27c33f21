"""Somebody on Windows saved a file of the base with CRLF, and had git keep that."""

from pathlib import Path

from tests.template.edits import write

OWNER = "template"
CONFLICTS = ["bulwark/static/admin.css"]


def edit(service: Path) -> None:
    style = service / "bulwark/static/admin.css"
    style.write_bytes(style.read_bytes().replace(b"\n", b"\r\n"))
    write(style.with_name(".gitattributes"), f"{style.name} -text\n")
