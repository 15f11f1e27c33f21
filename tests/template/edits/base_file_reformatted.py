"""The team's editor indents a file of the base with tabs."""

from pathlib import Path

OWNER = "template"
CONFLICTS = ["bulwark/crypto.py"]


def edit(service: Path) -> None:
    crypto = service / "bulwark/crypto.py"
    crypto.write_text(crypto.read_text().replace("    ", "\t"))
