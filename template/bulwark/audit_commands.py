"""`flask audit`: check the trail, search it, take it away as JSON, let old rows go."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import click
from flask import Flask
from flask.cli import AppGroup
from sqlalchemy import Select, select

from bulwark import audit, events, lines
from bulwark.events import SecurityEvent

commands = AppGroup("audit", help="The audit trail: check it, search it, export it.")
DAY = click.DateTime(["%Y-%m-%d"])


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(commands)


@commands.command()
@click.option(
    "--anchor",
    "extra",
    multiple=True,
    metavar="ROW:MAC",
    help="A link that you know from elsewhere: `audit` in a log line.",
)
def verify(extra: tuple[str, ...]) -> None:
    """Find the first row that was changed, removed, moved or added; exit 1 for one."""
    try:
        known = audit.anchors() | dict(map(_anchor, extra))
        head = audit.verify(known)
    except audit.BrokenError as error:
        raise click.ClickException(f"the audit trail is broken: {error}") from None
    rows = f"{head.position:,} rows, the last is {head}" if head else "no rows yet"
    click.echo(f"The audit trail is as it was written: {rows}.")


@commands.command()
@click.option("--name", help="Only events of this name.")
@click.option("--person", type=int, help="Only what concerns this number of a person.")
@click.option("--from", "first", type=DAY, help="From this day on, like 2026-11-21.")
@click.option("--to", "last", type=DAY, help="Until this day, which counts as well.")
def export(
    name: str | None,
    person: int | None,
    first: datetime | None,
    last: datetime | None,
) -> None:
    """Write rows as JSON, one a line, oldest first, with their links."""
    for row in audit.rows_of(_only(name, person, first, last)):
        click.echo(row)


@commands.command()
@click.option("--before", type=DAY, required=True, help="This day, like 2026-01-01.")
@click.option("--reason", required=True, help="Why, for the trail itself.")
def prune(before: datetime, reason: str) -> None:
    """Delete the rows of before a day; the rest stays provable."""
    try:
        head = audit.prune(before.replace(tzinfo=UTC), reason)
    except audit.BrokenError as error:
        raise click.ClickException(
            f"nothing was deleted, for the audit trail is broken: {error}"
        ) from None
    if head is None:
        click.echo("There is nothing as old as that.")
        return
    click.echo(f"Deleted the rows up to {head.position:,}.")


@commands.command()
def schema() -> None:
    """Write the JSON Schema that every line of the log fits in production."""
    click.echo(json.dumps(lines.schema(events.CATALOGUE), indent=2))


@commands.command()
def catalogue() -> None:
    """Write all events and fields as docs/events.md has them."""
    click.echo("\n".join(_catalogue()))


def _catalogue() -> Iterator[str]:
    yield "# Security events\n"
    yield "Made by `bin/flask audit catalogue`. Each is a line of the log, and"
    yield "`security_events_total` counts it by name; those with a tick are rows of the"
    yield "audit trail.\n"
    yield "| event | level | kept | meaning |\n|---|---|---|---|"
    for name, kind in events.CATALOGUE.items():
        level = logging.getLevelName(kind.level).lower()
        kept = "✓" if kind.kept else ""
        yield f"| `{name}` | {level} | {kept} | {kind.meaning} |"
    yield "\n## Fields of a line\n"
    yield "| field | type | meaning |\n|---|---|---|"
    for name, (kind_of_value, meaning) in lines.FIELDS.items():
        yield f"| `{name}` | {kind_of_value} | {meaning} |"


def _anchor(said: str) -> tuple[int, bytes]:
    found = re.fullmatch(r"(\d+):([0-9a-f]{64})", said)
    if not found:
        raise click.ClickException(
            f"{said} is not ROW:MAC, as `audit` in a log line has it"
        )
    return int(found[1]), bytes.fromhex(found[2])


def _only(
    name: str | None,
    person: int | None,
    first: datetime | None,
    last: datetime | None,
) -> Select[SecurityEvent]:
    query = select(SecurityEvent)
    if name:
        query = query.where(SecurityEvent.name == name)
    if person:
        query = query.where(SecurityEvent.user_id == person)
    if first:
        query = query.where(SecurityEvent.at >= first.replace(tzinfo=UTC))
    if last:
        end = last.replace(hour=23, minute=59, second=59, microsecond=999_999)
        query = query.where(SecurityEvent.at <= end.replace(tzinfo=UTC))
    return query
