"""The team deleted the example's test and wrote its own."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"
TEST = """\
def test_somebody_is_welcome(visitor):
    assert visitor.get("/").status_code == 200
"""


def edit(service: Path) -> None:
    (service / "tests/app/test_home.py").unlink()
    write(service / "tests/app/test_start.py", TEST)
