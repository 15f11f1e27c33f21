"""Scanning files for malware with clamd, if the service has a scanner.

The file is sent over clamd's Unix socket (INSTREAM in clamd(8)), so clamd needs no
access to it. Its TCP port has neither encryption nor passwords, so it is not used.
Without a clear answer, no file is accepted.
"""

import socket
import struct
from typing import IO

from flask import abort

from bulwark import settings
from bulwark.audit import events
from bulwark.observability.logging import log

CHUNK = 64 * 1024
TIMEOUT = 20  # seconds without progress; gunicorn ends a request after 30
ANSWER = 4096  # bytes, at most
CLEAN = "stream: OK"
FOUND = "FOUND"


class ScanError(Exception):
    """The scanner is unreachable, or did not scan the file."""


def refuse_infected(file: IO[bytes], name: str) -> None:
    """Scan a file, and leave it at its beginning.

    An infected file is refused with 415. If the scanner doesn't answer, every file is
    refused with 503. Without the setting `virus_scanner`, no file is scanned.
    """
    scanner = settings.current().virus_scanner
    if not scanner:
        return
    try:
        finding = scan(file, scanner)
    except (OSError, ScanError) as error:
        log.error("virus_scanner_failed", reason=str(error))
        abort(503, "Files can't be checked at the moment. Try again later.")
    finally:
        file.seek(0)
    if finding:
        events.emit("upload_malware", reason=finding)
        abort(415, f"{name} was refused: it contains malware.")


def scan(file: IO[bytes], scanner: str) -> str:
    """Return the name of the malware in a file, or "" if there is none.

    Args:
        file: the content, at its beginning.
        scanner: the path of clamd's socket.

    Raises:
        OSError: the scanner can't be reached, or takes too long.
        ScanError: it did not scan the file, such as one over its StreamMaxLength.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(scanner)
        connection.sendall(b"zINSTREAM\0")
        while chunk := file.read(CHUNK):
            connection.sendall(struct.pack("!L", len(chunk)) + chunk)
        connection.sendall(struct.pack("!L", 0))
        answer = _answer(connection)
    if answer == CLEAN:
        return ""
    if answer.endswith(FOUND):
        return answer.removeprefix("stream: ").removesuffix(FOUND).strip()
    raise ScanError(answer or "no answer")


def _answer(connection: socket.socket) -> str:
    """Return what clamd sends until a NUL, or until it closes the connection."""
    answer = b""
    while b"\0" not in answer and len(answer) < ANSWER:
        received = connection.recv(ANSWER)
        if not received:
            break
        answer += received
    return answer.partition(b"\0")[0].decode(errors="replace")
