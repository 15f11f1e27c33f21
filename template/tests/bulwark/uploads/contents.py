"""Small files of several types, and hostile ones."""

import stat
import struct
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154"
    "78da63f8cfc000000301010018dd8db00000000049454e44ae426082"
)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9"
PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
PAGE = b"<!DOCTYPE html><script>alert(document.domain)</script>"
DRAWING = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(document.domain)'/>"
PROGRAM = b"MZ\x90\x00\x03\x00\x00\x00" + bytes(200)


def zipped(*names: str, content: bytes = b"x") -> bytes:
    """Return a ZIP file with files of these names."""
    file = BytesIO()
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


def zipped_link(target: str) -> bytes:
    """Return a ZIP file with a symbolic link."""
    file, link = BytesIO(), ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with ZipFile(file, "w") as archive:
        archive.writestr(link, target)
    return file.getvalue()


def zipped_list(length: int) -> bytes:
    """Return a ZIP file whose list of files hides the mark of its end in itself."""
    entry = b"PK\1\2" + struct.pack("<4B4HL2L5H2L", 20, 0, 20, *[0] * 8, 1, *[0] * 6)
    listed, mark = (entry + b"a") * length, b"PK\5\6"
    counts = struct.pack("<2H2LH", length, length, len(listed), 30, 0)
    return b"PK\3\4" + bytes(26) + listed + mark + mark + counts


DOCX = zipped("[Content_Types].xml", "word/document.xml")
MACROS = zipped("[Content_Types].xml", "word/document.xml", "word/vbaProject.bin")
