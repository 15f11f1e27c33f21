"""Emails through an HTTP proxy, where the worker has no other way out."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

import pytest
from flask import Flask

from bulwark.mail import outbox, tunnel
from tests.bulwark.mail.conftest import Inbox, send, smtp_server, waiting

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Proxy:
    """An HTTP proxy that sends one response, then passes on what it gets."""

    def __init__(self, response: bytes, target: int | None = None) -> None:
        self.response, self.target, self.request = response, target, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        client, _ = self.listener.accept()
        with client:
            self.request = client.recv(4096)
            if not self.target:
                client.sendall(self.response)
                return
            with socket.create_connection(("localhost", self.target)) as server:
                # The greeting of the server follows the response at once.
                client.sendall(self.response + server.recv(4096))
                back = Thread(target=copy, args=(server, client))
                back.start()
                copy(client, server)
                back.join()


def copy(source: socket.socket, sink: socket.socket) -> None:
    while piece := source.recv(4096):
        sink.sendall(piece)
    sink.shutdown(socket.SHUT_WR)


@contextmanager
def serving(proxy: Proxy) -> Iterator[Proxy]:
    thread = Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        thread.join()
        proxy.listener.close()


def test_an_email_is_sent_through_the_proxy_of_the_settings(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    inbox = Inbox()
    monkeypatch.setattr("bulwark.mail.smtp.is_local", lambda _: True)  # needs no TLS
    with (
        smtp_server(inbox) as port,
        serving(Proxy(CONNECTED, port)) as proxy,
        app.app_context(),
    ):
        config = replace(
            app.extensions["bulwark"],
            mail_url=f"smtp://mail.test:{port}",
            outbound_proxy=proxy.url,
        )
        monkeypatch.setitem(app.extensions, "bulwark", config)
        send()
        outbox.deliver_due()
        assert waiting() == 0
    assert len(inbox.letters) == 1
    assert proxy.request.startswith(f"CONNECT mail.test:{port} HTTP/1.1\r\n".encode())


def test_a_mail_server_on_this_machine_needs_no_proxy(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    inbox = Inbox()
    with smtp_server(inbox) as port, app.app_context():
        config = replace(
            app.extensions["bulwark"],
            mail_url=f"smtp://localhost:{port}",
            outbound_proxy="http://proxy.invalid:3128",
        )
        monkeypatch.setitem(app.extensions, "bulwark", config)
        send()
        outbox.deliver_due()
    assert len(inbox.letters) == 1


@pytest.mark.parametrize(
    "response",
    [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"", b"\r\n\r\n"],
)
def test_a_refusal_of_the_proxy_is_an_error_that_delays_the_email(response: bytes):
    with serving(Proxy(response)) as proxy, pytest.raises(OSError, match="proxy"):
        tunnel.connect(proxy.url, "mail.test", 587, timeout=5)
