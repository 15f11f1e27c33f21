"""The team reads XML with a package of its own."""

from pathlib import Path

from tests.template.edits import replace, write

OWNER = "team"
FIRST = "dependencies = [\n"
READER = '''\
"""Invoices that suppliers send us."""

from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]


def number_of(invoice: bytes) -> str:
    """Return the number of an invoice in UBL."""
    return str(fromstring(invoice).findtext("{*}ID"))
'''


def edit(service: Path) -> None:
    replace(service / "pyproject.toml", FIRST, f'{FIRST}  "defusedxml>=0.7",\n')
    write(service / "app/suppliers.py", READER)
