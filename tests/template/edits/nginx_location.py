"""The team serves a file of its own with nginx."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"
LOCATION = """\
location = /robots.txt {
    return 200 "User-agent: *\\n";
}
"""


def edit(service: Path) -> None:
    write(service / "app/nginx/robots.conf", LOCATION)
