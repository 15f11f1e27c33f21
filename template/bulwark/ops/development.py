"""`flask seed` and `flask reset`: the data that a developer works with."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
from flask import current_app
from flask.app import Flask
from flask.cli import with_appcontext
from sqlalchemy import Connection, text

from bulwark import settings
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.network import is_local
from bulwark.ops.prepare import prepare

NO_SEED = """\
There is no app/seed.py. Write one with a function `seed()` that adds rows and that you
can run again; docs/every_day.md has an example."""


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(seed)
    app.cli.add_command(reset)


@click.command()
@with_appcontext
def seed() -> None:
    """Run `seed()` in app/seed.py, and commit what it adds."""
    _refuse_production()
    if not _has_seed():
        raise click.ClickException(NO_SEED)
    import_module(f"{current_app.import_name}.seed").seed()
    db.session.commit()
    click.echo("Ran app/seed.py.")


@click.command()
@with_appcontext
@click.pass_context
def reset(context: click.Context) -> None:
    """Delete the development database, create it again, and seed it."""
    _refuse_production()
    url = db.engine.url
    if url.host and not is_local(url.host):
        raise click.ClickException(
            f"the database is on another machine, {url.host}; nothing was deleted.\n"
            "Unset APP_DATABASE_URL, or delete that database with its own tools."
        )
    db.session.remove()
    with db.engine.begin() as connection:
        _drop_all(connection)
    queue.create_tables()
    queue.flush()
    # Otherwise, the new audit trail would seem to lack the rows of the former one.
    if anchors := settings.current().audit_anchors:
        Path(anchors).unlink(missing_ok=True)
    click.echo(f"Deleted everything in {Path(url.database or '').name}.")
    context.invoke(prepare)
    if _has_seed():
        context.invoke(seed)


def _refuse_production() -> None:
    if settings.current().environment == "production":
        raise click.ClickException(
            "this is for development; nothing was changed.\n"
            "In production, write a migration for rows that the service needs."
        )


def _has_seed() -> bool:
    return find_spec(f"{current_app.import_name}.seed") is not None


def _drop_all(connection: Connection) -> None:
    """Drop each table, those of no model too, in the order that keys allow."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        return
    connection.execute(text("PRAGMA defer_foreign_keys = ON"))
    found = text(
        "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table')"
        " AND name NOT LIKE 'sqlite_%' ORDER BY type DESC"
    )
    for kind, name in connection.execute(found).all():
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.execute(text(f"DROP {kind} {quoted}"))
