"""`flask keys status` and `flask keys rotate`."""

from datetime import datetime

import click
from flask.cli import AppGroup
from sqlalchemy.exc import IntegrityError

from bulwark import settings
from bulwark.audit import events
from bulwark.database import db, utcnow
from bulwark.identity import peppers, users
from bulwark.ops import thresholds
from bulwark.ops.keys import ages, stores
from bulwark.ops.keys.lock import RotationRunningError, one_rotation

commands = AppGroup("keys", help="Show the keys of the service, and rotate them.")

SHOWN = 5  # unreadable values
ADD = """There is one encryption key, so there is nothing to rotate. To begin:
1. bin/secrets rotate encryption add    adds a key that does not encrypt yet
2. Restart the web processes and the worker.
3. bin/secrets rotate encryption use    makes it the key that encrypts
4. Restart again, then run this command again."""
USE = """The newest key, {newest}, is not the first one, so it does not encrypt yet.
1. Make sure that all processes were restarted since it was added.
2. bin/secrets rotate encryption use
3. Restart the web processes and the worker, then run this command again."""
REMOVE = """Nothing needs {old} any more.
1. Keep {old} with the backups made so far: they need it.
2. bin/secrets rotate encryption remove
3. Restart the web processes and the worker."""


@commands.command()
def status() -> None:
    """Show each key, since when it is in use, and what still needs it."""
    ages.record()
    since = ages.since()
    config = settings.current()
    click.echo(f"encryption  APP_ENCRYPTION_KEYS, {_age(since['encryption'])}")
    found = stores.stores()
    for number, key_id in enumerate(config.encryption_keys):
        use = "encrypts" if number == 0 else "only reads"
        click.echo(f"  key {key_id} {use}")
        counts = {store.name: store.count(key_id) for store in found}
        for name, count in counts.items():
            if count:
                click.echo(f"    {count:>9,} {name}")
        if number and not any(counts.values()):
            click.echo("    nothing needs it, except backups that were made with it")
    click.echo(f"signing     APP_SECRET_KEY, {_age(since['signing'])}")
    if fallbacks := len(config.secret_key_fallbacks):
        click.echo(f"  {fallbacks} more accepted, from APP_SECRET_KEY_FALLBACKS")
    click.echo(f"pepper      APP_PASSWORD_PEPPER, {_age(since['pepper'])}")
    for generation in peppers.known():
        count = users.count_passwords(generation)
        click.echo(f"  generation {generation}: {count:,} passwords")


@commands.group()
def rotate() -> None:
    """Rotate a key."""


@rotate.command()
def encryption() -> None:
    """Renew all values with the newest key, while the service runs.

    It may be killed and started again at any time.
    """
    keys = list(settings.current().encryption_keys)
    if len(keys) == 1:
        click.echo(ADD)
        return
    numbers = {int(key_id): key_id for key_id in keys if key_id.isdigit()}
    if numbers and (newest := numbers[max(numbers)]) != keys[0]:
        raise click.ClickException(USE.format(newest=newest))
    try:
        with one_rotation(db.engine):
            _renew(keys[1:])
    except RotationRunningError:
        raise click.ClickException("another rotation is running") from None


def _renew(former: list[str]) -> None:
    all_stores, total = stores.stores(), 0
    for store in all_stores:
        renewed = 0
        try:
            for count in store.renew():
                renewed += count
        except IntegrityError:
            db.session.rollback()
            raise click.ClickException(
                f"{store.name}: two rows have equal values, one of them stored during"
                " the rotation. Change or delete one, then run this again"
            ) from None
        total += renewed
        click.echo(f"{renewed:>10,} renewed: {store.name}")
        _report_unreadable(store)
    left = sum(store.count(key_id) for store in all_stores for key_id in former)
    if left:
        raise click.ClickException(
            f"{left:,} values still need a former key. If a process that was not"
            " restarted wrote them, restart it and run this again"
        )
    events.record("sys_keys_rotated", count=total)
    db.session.commit()
    names = ("key " if len(former) == 1 else "the keys ") + ", ".join(former)
    click.echo(REMOVE.format(old=names))


def _report_unreadable(store: stores.Store) -> None:
    unreadable = getattr(store, "unreadable", [])
    for error in unreadable[:SHOWN]:
        click.echo(f"           unreadable: {error}", err=True)
    if len(unreadable) > SHOWN:
        click.echo(f"           and {len(unreadable) - SHOWN:,} more", err=True)


def _age(at: datetime | None) -> str:
    if at is None:
        return "age unknown"
    days = (utcnow() - at).days
    old = ": rotate it" if utcnow() - at > thresholds.KEY_AGE else ""
    return f"in use since {at:%Y-%m-%d} ({days} days){old}"
