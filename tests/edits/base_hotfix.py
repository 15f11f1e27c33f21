"""The team made a release's fix by hand, before that release was out."""

from pathlib import Path

from tests.edits import replace
from tests.releases import FIX

OWNER = "template"


def edit(service: Path) -> None:
    replace(service / "bulwark/web/proxy.py", *FIX)
