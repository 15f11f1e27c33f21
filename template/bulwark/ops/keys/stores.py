"""Everything that is encrypted or signed with the encryption keys.

Each store counts the values that need a key, and renews them with the newest key. It
does so in short transactions, so that requests are served meanwhile, and skips values
that changed in between. After a killed run, the next one skips what is done.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from flask import current_app
from sqlalchemy import (
    Column,
    LargeBinary,
    Select,
    Table,
    bindparam,
    column,
    func,
    select,
    table,
    update,
)

from bulwark import crypto, settings
from bulwark.audit import chain_keys
from bulwark.audit.chain_keys import ChainKey
from bulwark.database import db
from bulwark.database.blind_index import BlindIndex
from bulwark.database.encryption import Encrypted, encrypted_columns
from bulwark.identity.models import place_of_totp_secret
from bulwark.jobs import queue
from bulwark.mail import outbox
from bulwark.mail.outbox import OutgoingMail

BATCH = 500  # rows in a transaction: some 10 ms

# Returns the renewed value of a row, given its primary key, its value and, for a blind
# index, the encrypted value; None if it is current.
Renew = Callable[[str, bytes, bytes | None], bytes | None]


class Store(Protocol):
    """Something that needs the encryption keys."""

    @property
    def name(self) -> str:
        """What it is, such as `patients.diagnosis`."""

    def count(self, key_id: str) -> int:
        """Return how many values need a key."""

    def renew(self) -> Iterator[int]:
        """Renew all values in batches; yield the number renewed after each commit."""


@dataclass
class Values:
    """A column whose values begin with the id of their key.

    Args:
        of: the column.
        renew_value: returns a value under the newest key.
        source: for a blind index, the encrypted column.
        look_at_all: whether to look at values under the newest key, too.
        unreadable: the values that no key decrypts, which stay as they are.
    """

    of: Column[Any]
    renew_value: Renew
    source: Column[Any] | None = None
    look_at_all: bool = False
    unreadable: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The table and the column."""
        return f"{self.of.table.name}.{self.of.name}"

    def count(self, key_id: str) -> int:
        """Return how many values need a key."""
        mine, start = self._table(), f"{key_id}:".encode()
        begins = func.substr(mine.c[self.of.name], 1, len(start), type_=LargeBinary)
        return db.session.scalar(select(func.count()).where(begins == start)) or 0

    def renew(self) -> Iterator[int]:
        """Renew the values in the order of the primary key."""
        mine, (key,) = self._table(), self.of.table.primary_key
        row, value = mine.c[key.name], mine.c[self.of.name]
        change: dict[Any, Any] = {value: bindparam("new")}
        statement = (
            update(mine)
            .where(row == bindparam("of_row"), value == bindparam("old"))
            .values(change)
        )
        last = None
        while found := db.session.execute(self._batch(last)).all():
            changes = list(filter(None, map(self._renewed, found)))
            if changes:
                db.session.connection().execute(statement, changes)
            db.session.commit()
            yield len(changes)
            last = found[-1][0]

    def _renewed(self, found: Any) -> dict[str, Any] | None:
        row, old, source = found
        try:
            new = self.renew_value(str(row), bytes(old), source and bytes(source))
        except crypto.DecryptionError as error:
            self.unreadable.append(str(error))
            return None
        return None if new is None else {"of_row": row, "old": old, "new": new}

    def _batch(self, last: Any) -> Select[Any]:
        mine, (key,) = self._table(), self.of.table.primary_key
        row, value = mine.c[key.name], mine.c[self.of.name]
        source = mine.c[(self.source if self.source is not None else self.of).name]
        query = select(row, value, source).where(value.is_not(None))
        if not self.look_at_all:
            start = f"{newest_key_id()}:".encode()
            begins = func.substr(value, 1, len(start), type_=LargeBinary)
            query = query.where(begins != start)
        if last is not None:
            query = query.where(row > last)
        return query.order_by(row).limit(BATCH)

    def _table(self) -> Any:
        """Return the table with plain types: the column's own type would decrypt."""
        whole: Table = self.of.table
        keys = [column(key.name, key.type) for key in whole.primary_key]
        sealed = {
            self.of.name,
            (self.source if self.source is not None else self.of).name,
        }
        values: list[Any] = [column(name, LargeBinary) for name in sorted(sealed)]
        return table(whole.name, *keys, *values, schema=whole.schema)


class Jobs:
    """The rows of the queue, which are signed."""

    name = "queued jobs"

    def count(self, key_id: str) -> int:
        """Return how many rows are signed with a key."""
        return queue.count_rows(key_id)

    def renew(self) -> Iterator[int]:
        """Sign the rows with the newest key."""
        queue.renew_rows()
        yield 0


class Links:
    """The links of the audit trail, which never change: their keys are stored."""

    name = "links of the audit trail"

    def count(self, key_id: str) -> int:
        """Return how many links would be lost with a key."""
        return chain_keys.count_links(key_id)

    def renew(self) -> Iterator[int]:
        """Store the chain keys of former encryption keys."""
        stored = chain_keys.store_former_keys()
        db.session.commit()
        yield stored


def newest_key_id() -> str:
    """Return the id of the key that encrypts."""
    return next(iter(settings.current().encryption_keys))


def stores() -> list[Store]:
    """Return all stores: the team's encrypted columns, and those of the base."""
    metadata = db.metadata.tables
    seeds = metadata["users"].c.sealed_totp_secret
    messages = metadata[OutgoingMail.__tablename__].c.sealed_message
    of_chain = metadata[ChainKey.__tablename__].c.sealed_key
    return [
        *(
            _of_column(column)
            for column in encrypted_columns(db.metadata.sorted_tables)
        ),
        Values(seeds, _renew_seed, look_at_all=True),
        _sealed(messages, outbox.place_of),
        _sealed(of_chain, chain_keys.place_of),
        Links(),
        Jobs(),
    ]


def _of_column(of: Column[Any]) -> Values:
    kind: Any = of.type
    if isinstance(kind, Encrypted):
        return Values(of, lambda row, old, _: kind.seal(kind.unseal(old, row), row))
    index: BlindIndex = kind

    def rehash(row: str, _: bytes, sealed: bytes | None) -> bytes | None:
        if sealed is None:
            return None
        source = index.source_type
        return index.all(source.codec.decode(source.unseal(sealed, row)))[0]

    return Values(of, rehash, source=index.source_type.column)


def _sealed(of: Column[Any], place_of: Callable[[Any], str]) -> Values:
    def reseal(row: str, old: bytes, _: bytes | None) -> bytes:
        keys, place = settings.current().encryption_keys, place_of(row)
        return crypto.encrypt(
            crypto.decrypt(old, keys=keys, place=place), keys=keys, place=place
        )

    return Values(of, reseal)


def _renew_seed(user_id: str, old: bytes, _: bytes | None) -> bytes | None:
    """Renew the seed of an authenticator app, which is encrypted twice."""
    keys, place = settings.current().encryption_keys, place_of_totp_secret(user_id)
    seed = crypto.decrypt(old, keys=keys, place=place).decode()
    factory = current_app.extensions["security"].totp_factory
    current = old.startswith(f"{newest_key_id()}:".encode())
    if current and factory.is_current(seed):
        return None
    return crypto.encrypt(factory.renew(seed).encode(), keys=keys, place=place)
