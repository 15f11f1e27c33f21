"""The file: opened by its key alone, and every change of it is detected."""

import os
import random
from pathlib import Path

import pytest

from bulwark.ops.backups import archive, encryption
from tests.bulwark.ops.backups.support import (
    Service,
)

OLD_KEY, NEW_KEY = b"an old key, 0123" * 2, b"the new key, 012" * 2


def pieces_of(file: Path) -> tuple[bytes, list[bytes]]:
    """Return what a backup begins with, and its sealed chunks."""
    magic, line, rest = file.read_bytes().split(b"\n", 2)
    size = encryption.CHUNK + encryption.TAG
    chunks = [rest[at : at + size] for at in range(0, len(rest), size)]
    return magic + b"\n" + line + b"\n", chunks


def test_a_bit_that_flipped_is_found_wherever_it_is(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encryption, "CHUNK", 512)
    file = service.backup()
    service.lose_all_data()
    whole = file.read_bytes()
    start, chunks = pieces_of(file)
    assert len(chunks) > 5
    edges = [len(start) + sum(map(len, chunks[:n])) for n in range(len(chunks))]
    positions = {
        *range(0, len(start), 5),
        *(edge + near for edge in edges for near in (-16, -1, 0)),
        *random.sample(range(len(whole)), 40),
    }
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.randrange(8)
        file.write_bytes(damaged)
        assert service.refuses("restore", file), position
    assert service.tables() == []
    file.write_bytes(whole)
    service.restore(file)


def test_a_file_that_was_cut_or_reassembled_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encryption, "CHUNK", 512)
    file, other = service.backup(), service.backup()
    service.lose_all_data()
    start, chunks = pieces_of(file)
    other_start, other_chunks = pieces_of(other)
    first, second, *rest = chunks
    wrong = [
        *([start, *chunks[:number]] for number in range(len(chunks))),
        [start, *chunks[:-1], chunks[-1][:-1]],
        [start, *chunks, b"\0"],
        [start, *chunks, chunks[-1]],
        [start, second, first, *rest],
        [start, first, *rest],
        [start, first, first, second, *rest],
        [start, other_chunks[0], second, *rest],
        [other_start, *chunks],
    ]
    for parts in wrong:
        file.write_bytes(b"".join(parts))
        assert "is damaged or cut short" in service.refuses("restore", file)
    for size in (0, 10, len(start) - 5):
        file.write_bytes(start[:size])
        assert service.refuses("restore", file)
    file.write_bytes(archive.MAGIC + b"[" * 9000)
    assert "is damaged or cut short" in service.refuses("restore", file)
    assert service.tables() == []


def test_what_is_no_backup_is_refused(service: Service, tmp_path: Path):
    file = tmp_path / "letter.backup"
    for content in (
        b"",
        b"Dear all,\n",
        os.urandom(5000),
        b"bulwark backup, version 3\n",
    ):
        file.write_bytes(content)
        output = service.refuses("restore", file, "--replace")
        assert "is not a backup that this release can read" in output


def test_a_backup_of_another_service_is_refused(service: Service):
    file = service.backup()
    before = service.execute("SELECT * FROM roles")
    service.set(slug="other")
    output = service.refuses("restore", file, "--replace")
    assert "belongs to the service 'bulwark'" in output
    assert service.execute("SELECT * FROM roles") == before


def test_old_backups_open_while_their_key_is_still_listed(service: Service):
    service.set(encryption_keys={"1": OLD_KEY})
    old = service.backup()
    service.set(encryption_keys={"2": NEW_KEY, "1": OLD_KEY})
    new = service.backup()
    service.restore(old, "--replace")
    service.set(encryption_keys={"2": NEW_KEY})
    service.restore(new, "--replace")
    assert "Its id is '1'. Add it" in service.refuses("restore", old, "--replace")
