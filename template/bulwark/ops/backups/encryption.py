"""The encryption of a backup: chunks of AES-256-GCM.

Each file has its own key: HKDF (RFC 5869) of one of APP_ENCRYPTION_KEYS, a salt and the
whole beginning of the file. A nonce is the chunk's number and whether it is the last
one: STREAM (Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption,
CRYPTO 2015), in the form that age uses (C2SP, age.md). So changed, moved, dropped or
swapped chunks are detected.
"""

from collections.abc import Iterator
from typing import IO

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bulwark.crypto import KEY_BYTES

CHUNK = 64 * 1024
TAG = 16


def cipher_for(key: bytes, salt: bytes, start: bytes) -> AESGCM:
    """Return the cipher of a file that begins with `start`."""
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, start).derive(key))


def key_mark(key: bytes) -> str:
    """Return a fingerprint that identifies a key, and reveals nothing else about it."""
    return HKDF(SHA256(), 8, None, b"bulwark backup, mark of a key").derive(key).hex()


def encrypt(cipher: AESGCM, source: IO[bytes]) -> Iterator[bytes]:
    """Yield a stream's encrypted chunks."""
    for chunk, nonce in _with_nonces(source, CHUNK):
        yield cipher.encrypt(nonce, chunk, None)


def decrypt(cipher: AESGCM, source: IO[bytes]) -> Iterator[bytes]:
    """Yield the decrypted chunks of a stream.

    Raises:
        InvalidTag: a chunk was changed, moved, dropped or swapped.
    """
    for chunk, nonce in _with_nonces(source, CHUNK + TAG):
        yield cipher.decrypt(nonce, chunk, None)


def _with_nonces(source: IO[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks of a stream, each with its nonce."""
    number, chunk = 0, source.read(size)
    while True:
        following = source.read(size)
        yield chunk, number.to_bytes(11, "big") + bytes([not following])
        if not following:
            return
        number, chunk = number + 1, following
