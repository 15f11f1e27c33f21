"""The team's CI also runs each night."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"
WORKFLOW = """\
name: Nightly
on:
  schedule:
    - cron: "0 3 * * *"
jobs:
  checks:
    runs-on: ubuntu-24.04
    steps:
      - run: bin/ci
"""


def edit(service: Path) -> None:
    write(service / ".github/workflows/nightly.yml", WORKFLOW)
