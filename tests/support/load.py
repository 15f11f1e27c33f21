"""Visitors who ask a deployed service all the time, while something happens to it."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Sequence
from typing import Self

from tests.support.deployed import Connection, Server
from tests.support.servers import PATIENCE, eventually
from tests.support.visitor import DOMAIN, Response, exchange

HOST = {"Host": DOMAIN}


class Load:
    """Visitors who ask all the time: `with Load(server) as load: …`, then look.

    Each has an address of its own, and asks as often as one may. A connection that was
    closed while idle is opened again for a GET, as browsers do; a POST has a new one.
    """

    PACE = 1 / 45  # seconds; nginx lets 50 requests through in one
    ASKED = ("/test/release", "/static/app.css", "/test/release", "POST", "/healthz")

    def __init__(
        self, server: Server, visitors: int = 6, targets: Sequence[str] = ASKED
    ) -> None:
        self.server, self.visitors, self.targets = server, visitors, targets
        self.answered = 0
        self.dropped: list[str] = []
        self.releases: set[str] = set()
        self.posted: list[str] = []
        self.slowest = 0.0
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        network = self.server.visitor.rpartition(".")[0]
        self._threads = []
        for number in range(self.visitors):
            address = f"{network}.{number + 20}"
            self._threads.append(threading.Thread(target=self._visit, args=[address]))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, more: int) -> None:
        """Return when so many more were answered or dropped."""
        enough = self.asked + more
        eventually(lambda: self.asked >= enough, 300)

    @property
    def asked(self) -> int:
        """How many requests have come to an end."""
        return self.answered + len(self.dropped)

    def _visit(self, address: str) -> None:
        connection: Connection | None = None
        for number, what in enumerate(itertools.cycle(self.targets)):
            if self._over.is_set():
                break
            begin = time.monotonic()
            try:
                if what == "POST":
                    response = self._post(address, f"{address}/{number}")
                else:
                    connection = connection or self.server.connect(source=address)
                    try:
                        response = exchange(connection, "GET", what, None, HOST)
                    except (ConnectionError, http.client.RemoteDisconnected):
                        connection = self.server.connect(source=address)
                        response = exchange(connection, "GET", what, None, HOST)
                    if what == "/test/release" and response.status == 200:
                        self.releases.add(json.loads(response.body)["release"])
                fault = "" if response.status == 200 else str(response.status)
            except (OSError, http.client.HTTPException) as error:
                fault = repr(error)
                if connection:
                    connection.close()
                connection = None
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - begin)
                if fault:
                    self.dropped.append(f"{what}: {fault}")
                else:
                    self.answered += 1
            time.sleep(max(0, begin + self.PACE - time.monotonic()))
        if connection:
            connection.close()

    def _post(self, address: str, text: str) -> Response:
        connection = self.server.connect(source=address)
        try:
            self.posted.append(text)
            return exchange(connection, "POST", "/test/keep", text, HOST)
        finally:
            connection.close()
