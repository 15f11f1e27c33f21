"""The team's pages show pictures of another host."""

from pathlib import Path

from tests.template.edits import replace

OWNER = "team"
NONE = "CSP_SOURCES: dict[str, list[str]] = "
IMAGES = '{"img-src": ["https://images.example.com"]}'


def edit(service: Path) -> None:
    replace(service / "app/settings.py", f"{NONE}{{}}", f"{NONE}{IMAGES}")
