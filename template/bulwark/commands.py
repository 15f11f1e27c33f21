"""`flask prepare`: brings the database, and in development all else, up to date."""

from pathlib import Path

import click
from flask import Flask, current_app
from flask.cli import with_appcontext
from flask_migrate import upgrade
from sqlalchemy.exc import OperationalError, ProgrammingError

from bulwark import audit, certificate, config
from bulwark.database import db
from bulwark.identity import accounts
from bulwark.jobs import queue


def init_app(app: Flask) -> None:
    """Add the command."""
    app.cli.add_command(prepare)


@click.command()
@with_appcontext
def prepare() -> None:
    """Apply all migrations, make roles and the queue. Running it again changes nothing.

    In development it also makes a certificate, and prints the one-time link with
    which the first administrator sets a password.
    """
    upgrade(revision="heads")
    queue.create_tables()
    try:
        _prepare_accounts()
    except (OperationalError, ProgrammingError) as error:
        raise click.ClickException(
            f"the database lacks what the models have ({error.orig}).\n"
            'Run bin/flask db migrate -m "what changed", then this again.'
        ) from None


def _prepare_accounts() -> None:
    for role in accounts.make_roles():
        click.echo(f"made the role {role}")
    if linked := audit.adopt():
        click.echo(f"began the audit trail with {linked} earlier events")
    db.session.commit()
    if config.current().environment != "development":
        return
    folder = Path(current_app.root_path).parent / "instance" / "tls"
    if certificate.make(folder, config.current().name):
        click.echo(f"made a development certificate in {folder}")
    said = accounts.invitation()
    db.session.commit()
    click.echo(said)
