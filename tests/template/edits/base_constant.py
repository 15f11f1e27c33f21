"""The team waits longer for Redis."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"
CONFLICTS = ["bulwark/web/rate_limits.py"]


def edit(service: Path) -> None:
    replace(service / "bulwark/web/rate_limits.py", "TIMEOUT = 0.25", "TIMEOUT = 1.5")
