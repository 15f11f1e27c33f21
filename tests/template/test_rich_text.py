"""docs/rich_text.md, done to a new service as a reader would."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guide import Service, changing_its_own_files, copy_of

NOTES = """
TEXT = "<p>Buy <b>milk</b></p><script>alert(1)</script><img src=x onerror=alert(1)>"


def test_notes_keep_their_formatting_and_nothing_else(visitor, person):
    visitor.sign_in(person)
    sent = {"text": TEXT, "summary": "*Shopping* <b>list</b>"}
    assert visitor.submit("/notes/", sent | {"preview": "1"}).text == (
        "<p>Buy <b>milk</b></p>"
    )
    visitor.submit("/notes/", sent)
    page = visitor.get("/notes/").text
    assert "<p>Buy <b>milk</b></p>" in page
    assert "<em>Shopping</em> &lt;b&gt;list&lt;/b&gt;" in page
    assert "alert" not in page
"""
SHIPPED = ("test_facade.py", "test_service.py", "web/test_rich_text.py")


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "rich_text.md")
    with changing_its_own_files(service):
        yield service


def test_a_team_shows_formatted_notes_and_every_check_passes(team: Service) -> None:
    team.follow(*range(1, len(team.examples)))
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(NOTES)
    team.run("bin/test", "-q", "-n0", *(f"tests/bulwark/{name}" for name in SHIPPED))
