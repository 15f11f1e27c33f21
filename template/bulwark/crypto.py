"""Encryption of stored values: AES-256-GCM, bound to where each value is stored."""

import base64
import binascii
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D, 8.2.1: 96 bits, never used twice with a key


class DecryptionError(Exception):
    """The value was changed, moved from another place, or its key was removed."""


def parse_keys(text: str) -> dict[str, bytes]:
    """Parse `id:key,id:key`: the first key encrypts, all of them decrypt.

    Raises:
        ValueError: an id is missing or repeated, or a key is not 32 bytes of base64.
    """
    keys: dict[str, bytes] = {}
    for number, part in enumerate(text.split(","), start=1):
        key_id, _, encoded = part.strip().partition(":")
        try:
            key = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except binascii.Error:
            key = b""
        if not key_id or key_id in keys or len(key) != KEY_BYTES:
            raise ValueError(
                f"part {number} is not id:key with a 32-byte key in base64"
            )
        keys[key_id] = key
    return keys


def encrypt(plain: bytes, *, keys: Mapping[str, bytes], place: str) -> bytes:
    """Encrypt `plain` for `place`, such as `outgoing_mail.message:17`."""
    key_id, key = next(iter(keys.items()))
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, plain, place.encode())
    return key_id.encode() + b":" + nonce + sealed


def decrypt(sealed: bytes, *, keys: Mapping[str, bytes], place: str) -> bytes:
    """Return the value that was encrypted for the same place.

    Raises:
        DecryptionError: it was changed, belongs elsewhere, or its key was removed.
    """
    key_id, _, rest = sealed.partition(b":")
    key = keys.get(key_id.decode(errors="replace"))
    if key is None:
        raise DecryptionError(f"no key {key_id!r} to read {place}")
    try:
        return AESGCM(key).decrypt(
            rest[:NONCE_BYTES], rest[NONCE_BYTES:], place.encode()
        )
    except (InvalidTag, ValueError):
        raise DecryptionError(f"{place} was changed or belongs elsewhere") from None


def derive(key: bytes, purpose: str) -> bytes:
    """Derive a key for one purpose. It does not reveal the original key."""
    return HKDF(SHA256(), KEY_BYTES, None, purpose.encode()).derive(key)
