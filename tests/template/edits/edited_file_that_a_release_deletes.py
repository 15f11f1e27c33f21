"""The team lets its own robot past a rule."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "template"


def edit(service: Path) -> None:
    rules = service / "deploy/nginx/crs/watch.conf"
    replace(rules, "SecRuleEngine", "# Our robot may.\nSecRuleEngine")
