"""Email headers, encoded exactly as in RFC 2047.

Python's own encoder splits encoded words inside characters, loses spaces between them
(python/cpython#144156), and takes a subject that looks like an encoded word for one.
"""

import base64
from email.headerregistry import Address

# A line with an encoded word has at most 76 characters: RFC 2047, 2.
LINE = 76
WORD = 36  # bytes in one encoded word; with "=?utf-8?b??=" 60 characters
FOLD = "\r\n "


def subject(text: str) -> bytes:
    """Return the Subject header, which every email client shows unchanged."""
    return _header("Subject", text if _is_plain(text) else _encoded(text))


def mailbox(header: str, address: str, name: str = "") -> bytes:
    """Return a header such as `From` with one address.

    Raises:
        ValueError: the address is invalid, or contains a line break.
    """
    spec = str(Address(addr_spec=address))
    if not name:
        return _header(header, spec)
    if not _is_plain(name):
        return _header(header, f"{_encoded(name)}{FOLD}<{spec}>")
    quoted = name.replace("\\", r"\\").replace('"', r"\"")
    return _header(header, f'"{quoted}"{FOLD}<{spec}>')


def one_click(url: str) -> bytes:
    """Return the headers with which email clients offer to unsubscribe (RFC 8058).

    The URL has a line of its own: Python's encoder would split a long one.
    """
    return _header("List-Unsubscribe", f"<{url}>") + _header(
        "List-Unsubscribe-Post", "List-Unsubscribe=One-Click"
    )


def _header(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("ascii")


def _is_plain(text: str) -> bool:
    """Return whether text is unambiguous without encoding."""
    return (
        text.isascii()
        and text.isprintable()
        and "=?" not in text
        and text == " ".join(text.split())
        and len(f"Subject: {text}") <= LINE
    )


def _encoded(text: str) -> str:
    """Return encoded words, without splitting a character."""
    if len(text.splitlines()) > 1 or text != text.rstrip("\r\n"):
        raise ValueError("a header is one line")
    words = [b""]
    for character in text:
        encoded = character.encode()
        if len(words[-1]) + len(encoded) > WORD:
            words.append(b"")
        words[-1] += encoded
    return FOLD.join(f"=?utf-8?b?{base64.b64encode(w).decode()}?=" for w in words)
