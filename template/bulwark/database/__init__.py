"""The database: SQLite or PostgreSQL, one metadata for all models."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import DateTime, Dialect, MetaData, TypeDecorator, select
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import Pool

from bulwark.database import row_binding
from bulwark.database.blind_index import BlindIndex, Digest
from bulwark.database.encryption import Encrypted
from bulwark.database.engine import database_url, engine_options
from bulwark.settings import Config

__all__ = [
    "MERGE",
    "PERSONAL",
    "SECRET",
    "BlindIndex",
    "Digest",
    "Encrypted",
    "Model",
    "UTCDateTime",
    "db",
    "init_app",
    "migrate",
    "pool_of",
    "row_binding",
    "utcnow",
]

# Later migrations can change named constraints on every database. Names contain all
# columns, because PostgreSQL requires unique names. Existing constraints keep theirs.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# The kind of data in a column, as in `mapped_column(String(20), info=PERSONAL)`.
# The log redacts fields with the name of such a column (bulwark/observability/).
SECRET = {"data": "secret"}
PERSONAL = {"data": "personal"}


class _Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


db = SQLAlchemy(model_class=_Base, disable_autonaming=True)

if TYPE_CHECKING:
    Model = _Base
else:
    Model = db.Model


class UTCDateTime(TypeDecorator[datetime]):
    """A time in UTC, which is timezone-aware in Python on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Reject a time without a time zone, which is ambiguous."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time needs a time zone; use bulwark.database.utcnow()")
        return value and value.astimezone(UTC)

    def process_result_value(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        """Add the time zone, which SQLite does not store."""
        return value and value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


def utcnow() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def init_app(app: Flask, config: Config) -> None:
    """Configure the database, and the migrations of the base and of the app."""
    url = database_url(config)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(url) | {
        # A logged exception must not contain the values of its statement.
        "hide_parameters": config.environment != "development"
    }
    db.init_app(app)
    app.shell_context_processor(_names_in_the_shell)


def _names_in_the_shell() -> dict[str, Any]:
    """Return what `flask shell` has at hand: all models, `db` and `select`."""
    models = {
        mapper.class_.__name__: mapper.class_ for mapper in _Base.registry.mappers
    }
    return {**models, "db": db, "select": select}


def pool_of(app: Flask) -> Pool:
    """Return the pool of the app's connections."""
    with app.app_context():
        return db.engine.pool
