"""`flask prepare` updates the database; `flask db merge` merges migrations."""

from pathlib import Path

import click
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from flask import Flask, current_app
from flask.cli import with_appcontext
from flask_migrate import merge as merge_migrations
from flask_migrate import upgrade
from flask_migrate.cli import db as db_group
from sqlalchemy.exc import OperationalError, ProgrammingError

from bulwark import settings
from bulwark.audit import trail
from bulwark.database import db
from bulwark.database.migrations import MERGE, migrate
from bulwark.identity import invitations, roles
from bulwark.jobs import queue
from bulwark.ops import dev_certificate
from bulwark.ops.keys import ages


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(prepare)
    # Replaces Flask-Migrate's command, which would merge the base's branch too.
    db_group.add_command(merge)


@click.command()
@with_appcontext
def prepare() -> None:
    """Apply all migrations, and create roles and the queue. Safe to run repeatedly.

    In development, also create a certificate, and the first administrator with a
    one-time link to set a password.
    """
    upgrade(revision="heads")
    queue.create_tables()
    ages.record()
    try:
        _prepare_accounts()
    except (OperationalError, ProgrammingError) as error:
        raise click.ClickException(
            f"the database does not match the models ({error.orig}).\n"
            'Run bin/flask db migrate -m "what changed", then run this again.'
        ) from None


def _prepare_accounts() -> None:
    for role in roles.make_roles():
        click.echo(f"created the role {role}")
    if linked := trail.adopt():
        click.echo(f"started the audit trail with {linked} earlier events")
    db.session.commit()
    if settings.current().environment != "development":
        return
    folder = Path(current_app.root_path).parent / "instance" / "tls"
    if dev_certificate.make(folder, settings.current().name):
        click.echo(f"created a development certificate in {folder}")
    said = invitations.invite_first_administrator(again=False)
    db.session.commit()
    click.echo(said)


@click.command()
@click.option("-m", "--message", default="merge", help="the name of the new migration")
@click.argument("revisions", nargs=-1)
@with_appcontext
def merge(message: str, revisions: tuple[str, ...]) -> None:
    """Merge heads of the app's migrations: all of them, or those that you name.

    The base's branch stays separate, so that updates can add to it.
    """
    scripts = ScriptDirectory.from_config(migrate.get_config())
    try:
        named = scripts.get_revisions(revisions or ("app@heads",))
    except CommandError as error:
        raise click.ClickException(f"{error}. {MERGE}") from None
    base = set(scripts.iterate_revisions("bulwark@heads", "base"))
    if base & set(named):
        raise click.ClickException(
            f"the base's branch can't be merged with the app's. {MERGE}"
        )
    if len(named) < 2:  # noqa: PLR2004
        raise click.ClickException("the app's branch has one head: nothing to merge")
    merge_migrations(revisions=[one.revision for one in named if one], message=message)
