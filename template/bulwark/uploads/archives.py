"""ZIP files, and documents that are ZIP files: bounded before anyone unpacks them."""

import stat
import struct
from typing import IO
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
MACROS = "vbaProject.bin"
END = struct.Struct("<4s4H2LH")  # the record at the end of a ZIP file (APPNOTE, 4.3.16)
END_MARK = b"PK\x05\x06"
COMMENT = 2**16


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
    _check_directory(file)
    try:
        with ZipFile(file) as archive:
            entries = archive.infolist()
    except (BadZipFile, LargeZipFile, ValueError, struct.error, UnicodeDecodeError):
        return None
    if len(entries) > MOST_FILES:
        raise RefusedArchiveError(f"Send a ZIP file with {MOST_FILES} files at most.")
    if sum(entry.file_size for entry in entries) > MOST_UNPACKED:
        raise RefusedArchiveError("The file is too large when it is unpacked.")
    for entry in entries:
        _check_entry(entry)
    names = {entry.filename for entry in entries}
    return media_type if not part or part in names else None


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a list of files that would need much memory to read."""
    size = file.seek(0, 2)
    file.seek(max(0, size - END.size - COMMENT))
    tail = file.read()
    at = tail.rfind(END_MARK)
    if at < 0 or len(tail) - at < END.size:
        return
    directory = END.unpack_from(tail, at)[5]
    if directory > MOST_DIRECTORY:
        raise RefusedArchiveError("The ZIP file lists too many files.")


def _check_entry(entry: ZipInfo) -> None:
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise RefusedArchiveError("Send a ZIP file without links.")
    parts = entry.filename.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise RefusedArchiveError("Send a ZIP file whose paths stay in its folder.")
    if parts[-1] == MACROS:
        raise RefusedArchiveError("Send a document without macros.")
