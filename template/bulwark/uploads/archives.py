"""ZIP files, and documents that are ZIP files: bounded before anyone unpacks them."""

import stat
import struct
from typing import IO, cast
from zipfile import BadZipFile, LargeZipFile, ZipFile, ZipInfo

from werkzeug.exceptions import UnsupportedMediaType

MOST_FILES = 2000
MOST_UNPACKED = 200 * 10**6  # bytes
MOST_DIRECTORY = 2**20  # bytes of the list of files, which is read into memory
OFFICE = "application/vnd.openxmlformats-officedocument."
OPEN_DOCUMENT = "application/vnd.oasis.opendocument."
# Each format with its media type, and the name of a file that it contains.
CONTENTS = {
    ".docx": (f"{OFFICE}wordprocessingml.document", "word/document.xml"),
    ".odp": (f"{OPEN_DOCUMENT}presentation", "content.xml"),
    ".ods": (f"{OPEN_DOCUMENT}spreadsheet", "content.xml"),
    ".odt": (f"{OPEN_DOCUMENT}text", "content.xml"),
    ".pptx": (f"{OFFICE}presentationml.presentation", "ppt/presentation.xml"),
    ".xlsx": (f"{OFFICE}spreadsheetml.sheet", "xl/workbook.xml"),
    ".zip": ("application/zip", ""),
}
VISUAL_BASIC = "vbaproject.bin"
# Folders with macros: of Excel before it had Visual Basic, and of OpenDocument.
MACROS = {
    **dict.fromkeys((".docx", ".pptx", ".xlsx"), frozenset({"macrosheets"})),
    **dict.fromkeys((".odp", ".ods", ".odt"), frozenset({"basic", "scripts"})),
}
# What ZipFile raises for what is no ZIP file, or one that it can't read.
UNREADABLE = (BadZipFile, LargeZipFile, NotImplementedError, ValueError, struct.error)


class RefusedArchiveError(UnsupportedMediaType):
    """A ZIP file that is not accepted; the description has the reason."""


def check(file: IO[bytes], extension: str) -> str | None:
    """Return the media type of a ZIP file, or None if it doesn't have this format.

    Nothing is unpacked. The limits apply to the sizes that the file lists: an unpacker
    that enforces these stays within the limits.

    Raises:
        RefusedArchiveError: it has too many files, is too large when unpacked, or
            contains links, paths outside its folder, or macros.
    """
    media_type, part = CONTENTS[extension]
    try:
        with ZipFile(cast(IO[bytes], _ShortReads(file))) as archive:
            entries = archive.infolist()
    except UNREADABLE:
        return None
    if len(entries) > MOST_FILES:
        raise RefusedArchiveError(f"Send a ZIP file with {MOST_FILES} files at most.")
    if sum(entry.file_size for entry in entries) > MOST_UNPACKED:
        raise RefusedArchiveError("The file is too large when it is unpacked.")
    for entry in entries:
        _check_entry(entry, MACROS.get(extension, frozenset()))
    names = {entry.filename for entry in entries}
    return media_type if not part or part in names else None


class _ShortReads:
    """A file whose list of files ZipFile can't read if it would need much memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        most = MOST_DIRECTORY + 1
        content = self.file.read(most if size < 0 else min(size, most))
        if len(content) == most:
            raise RefusedArchiveError("The ZIP file lists too many files.")
        return content


def _check_entry(entry: ZipInfo, macros: frozenset[str]) -> None:
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise RefusedArchiveError("Send a ZIP file without links.")
    parts = entry.filename.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise RefusedArchiveError("Send a ZIP file whose paths stay in its folder.")
    lower = [part.lower() for part in parts]
    if lower[-1] == VISUAL_BASIC or not macros.isdisjoint(lower[:-1]):
        raise RefusedArchiveError("Send a document without macros.")
