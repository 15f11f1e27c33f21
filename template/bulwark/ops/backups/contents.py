"""The contents of a database, which a restored one must equal, and what is refused."""

from typing import NamedTuple

NO_DATA = "There is no data yet. Run `flask prepare` first."
IN_USE = (
    "The database is in use. Stop the service, its worker and `flask metrics` first."
)
NOT_EMPTY = (
    "The database is not empty, and a restore replaces all of its data. To do that, add"
    " --replace. To save the current data, run `flask backup` first."
)


class BackupError(Exception):
    """A backup or restore failed. The message explains how to fix it."""


class Contents(NamedTuple):
    """The contents of a database."""

    revisions: list[str]
    tables: int
    rows: int

    def __str__(self) -> str:
        return f"{self.tables} tables, {self.rows} rows"


class Files(NamedTuple):
    """The uploaded files in a backup."""

    number: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.number} uploaded files"


def refuse_difference(actual: Contents, expected: Contents) -> None:
    """Raise an error unless a database has the contents that its backup lists."""
    if actual != expected:
        raise BackupError(f"The backup lists {expected}, but it contains {actual}.")
