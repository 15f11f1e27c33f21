"""The team made a release's fix by hand, before that release was out."""

from pathlib import Path

from tests.support.releases import FIX
from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    replace(service / "bulwark/web/proxy.py", *FIX)
