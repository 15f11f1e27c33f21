"""The file of a backup: MAGIC, a line of JSON that describes it, and encrypted chunks.

The chunks are the uploaded files, then a tar of SQLite's files or the output of pg_dump
(`payload`). A backup of version 1 has no uploaded files. `encryption` describes how
changes are detected.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bulwark import settings
from bulwark.crypto import KEY_BYTES
from bulwark.database.engine import database_url
from bulwark.ops.backups import encryption, filesystem
from bulwark.ops.backups.contents import BackupError, Contents, Files

MAGIC = b"bulwark backup, version 2\n"
WITHOUT_FILES = b"bulwark backup, version 1\n"
HEADER_LIMIT = 16 * 1024


@dataclass(frozen=True)
class Header:
    """The line of JSON at the beginning of a backup."""

    service: str
    database: str
    made: str
    key_id: str
    key_mark: str
    salt: str
    contents: Contents
    files: Files | None = None


def write(
    path: Path, made: str, contents: Contents, files: Files, payload: IO[bytes]
) -> None:
    """Write a backup, encrypted with the first of APP_ENCRYPTION_KEYS."""
    config = settings.current()
    kind = database_url(config).get_backend_name()
    key_id, key = next(iter(config.encryption_keys.items()))
    salt, mark = secrets.token_bytes(KEY_BYTES), encryption.key_mark(key)
    header = Header(config.slug, kind, made, key_id, mark, salt.hex(), contents, files)
    with filesystem.create_private(path) as target:
        start = MAGIC + json.dumps(asdict(header)).encode() + b"\n"
        cipher = encryption.cipher_for(key, salt, start)
        target.write(start)
        target.writelines(encryption.encrypt(cipher, payload))
    filesystem.sync(path)


def verify(path: Path) -> Header:
    """Decrypt every chunk of a backup, and return its header."""
    with path.open("rb") as source:
        header, chunks = read(source)
        for _ in chunks:
            pass
    return header


def read(source: IO[bytes]) -> tuple[Header, Iterator[bytes]]:
    """Return the header, which the first chunk authenticates, and the chunks."""
    header, start = _read_header(source)
    _refuse_foreign(source, header)
    key = _key_of(source, header)
    cipher = encryption.cipher_for(key, bytes.fromhex(header.salt), start)
    return header, _decrypt(source, cipher)


def _read_header(source: IO[bytes]) -> tuple[Header, bytes]:
    """Return the header, and the bytes before the first chunk."""
    magic = source.readline(len(MAGIC))
    line = source.readline(HEADER_LIMIT)
    if magic not in (MAGIC, WITHOUT_FILES):
        raise BackupError(f"{source.name} is not a backup that this release can read.")
    try:
        fields = json.loads(line)
        fields["contents"] = Contents(*fields["contents"])
        if magic != WITHOUT_FILES:
            fields["files"] = Files(*fields["files"])
        header = Header(**fields)
        bytes.fromhex(header.salt)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise _damaged(source) from None
    return header, magic + line


def _refuse_foreign(source: IO[bytes], header: Header) -> None:
    """Raise an error if the backup is of another service or kind of database."""
    config = settings.current()
    kind = database_url(config).get_backend_name()
    if (header.service, header.database) != (config.slug, kind):
        raise BackupError(
            f"{source.name} belongs to the service {header.service!r} on"
            f" {header.database!r}, but this is {config.slug!r} on {kind!r}."
        )


def _key_of(source: IO[bytes], header: Header) -> bytes:
    for key in settings.current().encryption_keys.values():
        if encryption.key_mark(key) == header.key_mark:
            return key
    raise BackupError(
        f"{source.name} was encrypted with a key that is not in APP_ENCRYPTION_KEYS."
        f" Its id is {header.key_id!r}. Add it there, after the others. The"
        " env.production from the day of the backup contains it."
    )


def _decrypt(source: IO[bytes], cipher: AESGCM) -> Iterator[bytes]:
    try:
        yield from encryption.decrypt(cipher, source)
    except InvalidTag:
        raise _damaged(source) from None


def _damaged(source: IO[bytes]) -> BackupError:
    return BackupError(f"{source.name} is damaged or cut short. Use another backup.")
