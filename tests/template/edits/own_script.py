"""The team has a command of its own."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"


def edit(service: Path) -> None:
    script = service / "bin/import-invoices"
    write(script, "#!/bin/sh\nexec bin/flask invoices import\n")
    script.chmod(0o755)
