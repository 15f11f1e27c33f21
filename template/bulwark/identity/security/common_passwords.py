"""Common passwords: a list of hashes with a lookup in microseconds.

`common_passwords.bin` contains the first bytes of the SHA-256 of each password, sorted.
Of ten million other passwords, three are false positives. The file is memory-mapped, so
all processes share it.
"""

import mmap
import unicodedata
from bisect import bisect_left
from functools import cache
from hashlib import sha256
from pathlib import Path

FILE = Path(__file__).with_suffix(".bin")
SIZE = 5  # bytes of each hash


def is_common(password: str) -> bool:
    """Return whether a password is in the list, in any case or Unicode form."""
    hashes, wanted = _hashes(), digest(fold(password))
    count = len(hashes) // SIZE
    place = bisect_left(
        range(count), wanted, key=lambda n: hashes[n * SIZE : (n + 1) * SIZE]
    )
    return hashes[place * SIZE : (place + 1) * SIZE] == wanted


def fold(password: str) -> str:
    """Return a password in normalized form."""
    return unicodedata.normalize("NFKC", password).casefold()


def digest(folded: str) -> bytes:
    """Return the truncated hash of a password, as stored in the file."""
    return sha256(folded.encode(errors="surrogatepass")).digest()[:SIZE]


@cache
def _hashes() -> mmap.mmap:
    with FILE.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
