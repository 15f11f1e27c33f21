"""The team added a page to the base."""

from pathlib import Path

from tests.template.edits import append

OWNER = "template"
CONFLICTS = ["bulwark/ops/health.py"]
VIEW = '''

@blueprint.get("/version")
@public
def version() -> ResponseReturnValue:
    """Say which version this is."""
    return jsonify(version="1.4")
'''


def edit(service: Path) -> None:
    append(service / "bulwark/ops/health.py", VIEW)
