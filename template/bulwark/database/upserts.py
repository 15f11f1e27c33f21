"""Upserts: INSERT … ON CONFLICT DO UPDATE, on SQLite and PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute

from bulwark.database import Model, db


def upsert(
    model: type[Model],
    values: Mapping[str, Any],
    *,
    key: Sequence[InstrumentedAttribute[Any]],
    changes: Mapping[str, Any],
) -> postgresql.Insert | sqlite.Insert:
    """Return a statement that inserts a row, or changes the one that has its key.

    Concurrent ones never fail on the key: each changes what the one before it stored.
    """
    is_postgresql = db.engine.dialect.name == "postgresql"
    insert = postgresql.insert if is_postgresql else sqlite.insert
    row: postgresql.Insert | sqlite.Insert = insert(model).values(**values)
    return row.on_conflict_do_update(index_elements=key, set_=changes)
