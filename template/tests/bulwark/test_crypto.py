"""Encryption at rest: bound to its place, with keys that can be changed."""

import pytest

from bulwark import crypto

KEYS = {"1": b"k" * 32}
SEALED = crypto.encrypt(b"plain", keys=KEYS, place="table.column:1")


def test_what_was_encrypted_can_be_read():
    assert crypto.decrypt(SEALED, keys=KEYS, place="table.column:1") == b"plain"
    assert b"plain" not in SEALED


def test_the_same_text_looks_different_each_time():
    assert crypto.encrypt(b"plain", keys=KEYS, place="table.column:1") != SEALED


@pytest.mark.parametrize(
    ("sealed", "keys", "place"),
    [
        (SEALED, KEYS, "table.column:2"),
        (SEALED[:-1] + bytes([SEALED[-1] ^ 1]), KEYS, "table.column:1"),
        (SEALED[:5], KEYS, "table.column:1"),
        (SEALED, {"1": b"K" * 32}, "table.column:1"),
        (SEALED, {"2": b"k" * 32}, "table.column:1"),
        (b"", KEYS, "table.column:1"),
    ],
    ids=["moved", "changed", "cut", "another key", "no such key", "empty"],
)
def test_what_was_changed_moved_or_lost_its_key_is_refused(
    sealed: bytes, keys: dict[str, bytes], place: str
):
    with pytest.raises(crypto.DecryptionError):
        crypto.decrypt(sealed, keys=keys, place=place)


def test_keys_are_read_newest_first():
    text = "b:" + "Yg" + "Y" * 41 + ", a:" + "Y" * 43 + "="
    assert list(crypto.parse_keys(text)) == ["b", "a"]


@pytest.mark.parametrize(
    "text",
    ["", "1", "1:", ":" + "Y" * 43, "1:YWJj", "1:?", f"1:{'Y' * 43},1:{'Y' * 43}"],
)
def test_a_key_that_is_not_one_is_refused(text: str):
    with pytest.raises(ValueError, match="is not id:key"):
        crypto.parse_keys(text)
