"""Counts the round trips to PostgreSQL: all that goes over its connections."""

import socket
import threading
from contextlib import suppress


class CountingProxy:
    """Passes connections on, and counts each time the client speaks after the server.

    That includes BEGIN, ROLLBACK and a pool's pings, which no listener of statements
    sees, and counts a pipeline of statements once.

    Args:
        host: the server's host.
        port: the server's port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.round_trips = 0
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(self._server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answered = threading.Event()
            answered.set()
            self._start(self._ask, client, server, answered)
            self._start(self._answer, server, client, answered)

    def _ask(
        self, client: socket.socket, server: socket.socket, answered: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if answered.is_set():
                    answered.clear()
                    self.round_trips += 1
                server.sendall(data)
        server.close()

    @staticmethod
    def _answer(
        server: socket.socket, client: socket.socket, answered: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                answered.set()
                client.sendall(data)
        client.close()

    @staticmethod
    def _start(work: object, *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()  # type: ignore[arg-type]
