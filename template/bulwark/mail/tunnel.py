"""Connections to the mail server through an HTTP proxy."""

import smtplib
import socket
from urllib.parse import urlsplit

from bulwark import settings
from bulwark.network import is_local

HEAD = 8192  # bytes of a proxy's response


class SMTP(smtplib.SMTP):
    """Connects through the proxy in the settings, if there is one."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        proxy = settings.current().outbound_proxy
        if not proxy or is_local(host):
            return super()._get_socket(host, port, timeout)  # type: ignore[misc,no-any-return]
        return connect(proxy, host, port, timeout)


class TLS(smtplib.SMTP_SSL, SMTP):
    """The same, with TLS from the first byte."""


def connect(proxy: str, host: str, port: int, timeout: float) -> socket.socket:
    """Return a connection to a host through a proxy (RFC 9110, 9.3.6).

    Raises:
        OSError: the proxy is down, or refuses to connect.
    """
    url = urlsplit(proxy)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection = socket.create_connection((url.hostname or "", url.port or 0), timeout)
    try:
        _request_tunnel(connection, target)
    except BaseException:
        connection.close()
        raise
    return connection


def _request_tunnel(connection: socket.socket, target: str) -> None:
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
    connection.sendall(request.encode())
    status = _read_head(connection).split(b"\r\n")[0].decode("latin-1")
    if status.split()[1:2] != ["200"]:
        raise OSError(f"the proxy did not connect to {target}: {status}")


def _read_head(connection: socket.socket) -> bytes:
    """Read to the end of the head: what follows is the mail server's greeting."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(head) > HEAD:
            raise OSError("the proxy did not finish its response")
        head += byte
    return head
