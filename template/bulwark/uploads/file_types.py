"""The type of a file, found from its content; its name must agree.

puremagic knows the signatures of binary files. Text has none: it must be UTF-8 without
control characters. A ZIP file, which many document formats are, is checked by
`archives`. No check makes a file harmless, so `downloads` also keeps browsers from
running any.
"""

import codecs
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import IO

from werkzeug.exceptions import UnsupportedMediaType

from bulwark.uploads import archives

HEAD = 8 * 1024  # bytes in which a signature is
CHUNK = 64 * 1024
ZIP = b"PK\x03\x04"
BINARY = "application/octet-stream"
TEXT = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".txt": "text/plain",
}
# Compressed formats whose contents can't be checked without unpacking them.
UNCHECKED = frozenset({".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zst"})
EXTENSION = re.compile(r"\.[a-z0-9]+")
CONTROL = bytes({*range(32), 127} - set(b"\t\n\r\f"))


def check_declared(model: str, accepts: Iterable[str]) -> None:
    """Check the extensions that a model accepts.

    Raises:
        TypeError: there are none, one is misspelled, or its files can't be checked.
    """
    if isinstance(accepts, str) or not (declared := list(accepts)):
        raise TypeError(f'{model} needs accepts = (".pdf", …), the accepted extensions')
    for extension in declared:
        if not EXTENSION.fullmatch(extension):
            raise TypeError(f"{model}.accepts: write {extension!r} like '.pdf'")
        if extension in UNCHECKED:
            raise TypeError(
                f"{model}.accepts: the contents of a {extension} are not checked"
            )


def media_type(file: IO[bytes], name: str, accepts: Iterable[str]) -> str:
    """Return the media type of a file, and leave the file at its beginning.

    Args:
        file: the content, at its beginning.
        name: its name, whose extension must be one of `accepts` and fit the content.
        accepts: extensions in lowercase, such as ".pdf".

    Raises:
        UnsupportedMediaType: the file is not accepted, with the reason.
        archives.RefusedArchiveError: the same, for a ZIP file.
    """
    extension = PurePath(name).suffix.lower()
    if extension not in accepts:
        raise UnsupportedMediaType(
            f"{name} has another type. Send one of these types: {', '.join(accepts)}."
        )
    try:
        found = _type_of(file, extension)
    finally:
        file.seek(0)
    if found is None:
        raise UnsupportedMediaType(
            f"The content of {name} is not that of a {extension}."
        )
    return found


def _type_of(file: IO[bytes], extension: str) -> str | None:
    if extension in TEXT:
        return TEXT[extension] if _is_text(file) else None
    head = file.read(HEAD)
    if extension in archives.CONTENTS:
        return archives.check(file, extension) if head.startswith(ZIP) else None
    if head.startswith(ZIP):  # puremagic can't distinguish formats that are ZIP files
        return None
    return _signatures(head).get(extension)


def _signatures(head: bytes) -> dict[str, str]:
    """Return the extensions and media types that fit the beginning of a file."""
    import puremagic  # noqa: PLC0415  for services with uploads only

    try:
        found = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return {}
    return {match.extension: match.mime_type or BINARY for match in found}


def _is_text(file: IO[bytes]) -> bool:
    """Return whether a file is UTF-8 text, reading it in chunks."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while chunk := file.read(CHUNK):
            if chunk.translate(None, CONTROL) != chunk:
                return False
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
