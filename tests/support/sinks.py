"""Splunk, Loggly and a syslog server, as far as tests of shipping need them.

    with Splunk(folder).running() as sink:  # takes what comes
        sink.mood = "busy"                  # and from now on answers 503
        sink.lines                          # what it has taken, in the order it came

They are real servers with TLS on a port of their own; only what they keep is less.
"""

import http.client
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import trustme

from tests.support.certificates import issue
from tests.support.servers import free_port

# What it does with clients: accepts lines; responds 503, or another status; sends
# nothing, not even in TLS; completes the handshake, and then does nothing.
FINE, BUSY, SILENT, STUCK = "fine", "busy", "silent", "stuck"

# <14>1 TIME HOST APP PROCID MSGID - MESSAGE, where - may be [elements].
HEADER = re.compile(r"(<\d+>1 (?:\S+ ){5}(?:-|(?:\[[^]]*\])+)) \ufeff?(.*)", re.DOTALL)


class Sink:
    """A server whose mood, certificate and presence a test can change."""

    piece, standard_port = "", 0
    busy_is_known = True
    # Lines that are lost when a connection breaks.
    costs = 0

    def __init__(
        self, folder: Path, address: str = "127.0.0.1", name: str = "localhost"
    ) -> None:
        self.address, self.mood, self.status = address, FINE, 503
        self.port = self.standard_port if address != "127.0.0.1" else free_port()
        self.lines: list[str] = []
        self.heads: list[str] = []
        # Bytes that came after TLS was agreed on, whatever they were.
        self.bytes = 0
        self.certificate = folder / "sink.pem"
        self.key = folder / "sink.key"
        self.own = (self.certificate, self.key)
        # Somebody else with a certificate of the same authority.
        self.other = (folder / "other.pem", folder / "other.key")
        self.authority = folder / "authority.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        for host, own in ((name, self.own), ("elsewhere.example", self.other)):
            issue(authority, host, *own)
        self.streams: dict[socket.socket, socket.socket] = {}

    @contextmanager
    def running(self) -> Iterator[Self]:
        self.arrive()
        try:
            yield self
        finally:
            self.mood = FINE  # else those who wait for it do so for ever
            self.vanish()

    def arrive(self) -> None:
        self.listener = socket.create_server((self.address, self.port))
        threading.Thread(target=self._listen, args=(self.listener,)).start()

    def vanish(self) -> None:
        """Be gone at once, as after a power cut."""
        self._stop_listening()
        for stream, plain in list(self.streams.items()):
            # A reset: what is still in the buffers of either side is lost.
            linger = (1).to_bytes(4, "little") + bytes(4)
            with suppress(OSError):
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                plain.shutdown(socket.SHUT_RDWR)
            for side in (stream, plain):
                with suppress(OSError):
                    side.close()

    def leave(self) -> None:
        """Stop as a server does: close, and read what is under way."""
        self._stop_listening()
        for plain in list(self.streams.values()):
            with suppress(OSError):
                plain.shutdown(socket.SHUT_WR)
        end = time.monotonic() + 1
        while self.streams and time.monotonic() < end:
            time.sleep(0.01)
        self.vanish()

    def show(self, certificate: Path, key: Path) -> None:
        """Have another certificate for who connects from now on."""
        self.own = (certificate, key)

    def _stop_listening(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        # Shutting down one side of a TLS stream is not for Python; of its twin it is.
        twin = socket.socket(fileno=os.dup(plain.fileno()))
        self.streams[plain] = twin
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.own)
        stream: socket.socket = plain
        try:
            self._wait_while(SILENT)
            plain.settimeout(60)
            stream = context.wrap_socket(plain, server_side=True)
            self.streams[stream] = self.streams.pop(plain)
            self.talk(stream)
        except OSError:
            pass  # the client hung up
        finally:
            self.streams.pop(stream, None)
            for side in (stream, twin):
                with suppress(OSError):
                    side.close()

    def _wait_while(self, *moods: str) -> None:
        while self.mood in moods:
            time.sleep(0.02)

    def read(self, stream: socket.socket) -> bytes:
        """Return more bytes, none at the end."""
        self._wait_while(SILENT, STUCK)
        more = stream.recv(65536)
        self.bytes += len(more)
        return more

    def talk(self, stream: socket.socket) -> None:
        raise NotImplementedError


class Web(Sink):
    """A server of HTTP/1.1 that keeps the lines of a body when it has answered 200."""

    def talk(self, stream: socket.socket) -> None:
        had = b""
        while True:
            while b"\r\n\r\n" not in had:
                more = self.read(stream)
                if not more:
                    return
                had += more
            head, _, had = had.partition(b"\r\n\r\n")
            fields = dict(
                line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:]
            )
            if fields.get("expect") == "100-continue":
                stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = int(fields["content-length"])
            while len(had) < length:
                more = self.read(stream)
                if not more:
                    return
                had += more
            body, had = had[:length], had[length:]
            # Whoever became silent or stuck meanwhile has taken it and sends nothing.
            self._wait_while(SILENT, STUCK)
            status = self.status if self.mood == BUSY else 200
            self.heads.append(head.decode())
            if status == 200:
                status = self.take(head.decode(), body)
            words = json.dumps({"text": http.client.responses[status], "code": 0})
            answer = (
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(words)}\r\n\r\n{words}"
            )
            stream.sendall(answer.encode())

    def take(self, head: str, body: bytes) -> int:
        raise NotImplementedError


class Splunk(Web):
    """An HTTP Event Collector."""

    piece, standard_port = "splunk", 8088

    def take(self, head: str, body: bytes) -> int:
        first, *fields = head.split("\r\n")
        if first != "POST /services/collector/event HTTP/1.1":
            return 404
        if "Authorization: Splunk sesame-1234" not in fields:
            return 403
        # Events follow each other; Splunk does not mind what is between them.
        events = [json.loads(line) for line in body.split(b"\n") if line]
        if any(not event.get("event") or float(event["time"]) < 1 for event in events):
            return 400
        self.lines += [event["event"] for event in events]
        return 200


class Loggly(Web):
    """The bulk endpoint of Loggly: a line is an event."""

    piece, standard_port = "loggly", 443

    def take(self, head: str, body: bytes) -> int:
        if head.split(" ")[1] != "/bulk/sesame-1234/tag/shop/":
            return 403
        self.lines += body.decode().split("\n")
        return 200


class Syslog(Sink):
    """A syslog server: messages of RFC 5424, counted as in RFC 5425."""

    piece, standard_port = "syslog", 6514
    busy_is_known = False
    # There are no receipts, and syslog-ng learns by a line in vain that nobody listens.
    costs = 1

    def talk(self, stream: socket.socket) -> None:
        had = b""
        while more := self.read(stream):
            had += more
            while True:
                length, blank, rest = had.partition(b" ")
                if not blank or len(rest) < int(length):
                    break
                message, had = rest[: int(length)].decode(), rest[int(length) :]
                found = HEADER.fullmatch(message)
                assert found, message
                head, text = found.groups()
                self.heads.append(head)
                # syslog-ng ends each message with a line end, which servers take off.
                self.lines.append(text.removesuffix("\n"))
