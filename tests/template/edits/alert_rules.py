"""The team is woken when nobody can sign in."""

from pathlib import Path

from tests.template.edits import write

OWNER = "team"
RULES = """\
groups:
  - name: sign-in
    rules:
      - alert: NobodyGetsIn
        expr: rate(sign_in_steps_total{step="done"}[15m]) == 0
"""


def edit(service: Path) -> None:
    write(service / "app/alerts/sign-in.yml", RULES)
