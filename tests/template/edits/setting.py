"""The team has a setting, and a value for it on this machine."""

from pathlib import Path

from tests.template.edits import append, replace

OWNER = "team"
IMPORT = "from dataclasses import dataclass\n"
LAST = 'with `bulwark.setting`."""\n'
FIELD = """
    payment_days: int = setting(
        "days until an invoice has to be paid", default=30, cast=whole_number(1, 90)
    )
"""


def edit(service: Path) -> None:
    settings = service / "app/settings.py"
    replace(
        settings,
        IMPORT,
        f"{IMPORT}\nfrom bulwark import setting, whole_number\n",
    )
    replace(settings, LAST, LAST + FIELD)
    append(service / ".env", "\nAPP_PAYMENT_DAYS=14")
