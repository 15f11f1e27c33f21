"""Delivery of an email to the mail server over SMTP."""

import base64
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import SMTP

from bulwark import settings
from bulwark.mail import tunnel
from bulwark.network import is_local
from bulwark.settings import urls

TIMEOUT = 10  # seconds for each step of the session with the server
SIGNED_IN = 235  # RFC 4954, 6
CLOSING = 421  # RFC 5321, 3.8: the server ends the connection
PERMANENT = 500  # RFC 5321, 4.2.1: a retry will not help


class MailRefusedError(Exception):
    """The server will never accept this email."""


def deliver(url: urls.Server, message: bytes) -> None:
    """Deliver an email.

    Raises:
        MailRefusedError: the server will never accept it.
        OSError: there is no connection to the server.
        smtplib.SMTPException: the server does not accept it now.
    """
    try:
        with _connection(url) as server:
            # As it is stored: serializing it again could change its headers.
            server.sendmail(*_envelope(message), message)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        if all(code >= PERMANENT for code in codes):
            raise MailRefusedError from error
        raise
    except smtplib.SMTPResponseException as error:
        if isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= PERMANENT:
            raise MailRefusedError from error
        raise


def concerns_one_recipient(error: Exception) -> bool:
    """Return whether only the recipient was rejected, on an open connection."""
    if not isinstance(error, smtplib.SMTPRecipientsRefused):
        return False
    return all(code != CLOSING for code, _ in error.recipients.values())


def _envelope(message: bytes) -> tuple[str, str]:
    """Return the addresses of the sender and the recipient."""
    read = message_from_bytes(message, policy=SMTP)
    return read["From"].addresses[0].addr_spec, read["To"].addresses[0].addr_spec


@contextmanager
def _connection(url: urls.Server) -> Iterator[smtplib.SMTP]:
    """Connect and sign in; another host requires TLS with a verified certificate."""
    tls = ssl.create_default_context()
    over_tls, port = url.scheme == "smtps", url.port or 0
    # Servers reject "localhost" or the name of a container in the greeting.
    own = settings.current().domain
    with (
        tunnel.TLS(url.host, port, own, timeout=TIMEOUT, context=tls)
        if over_tls
        else tunnel.SMTP(url.host, port, own, timeout=TIMEOUT)
    ) as server:
        server.ehlo()
        if not over_tls and (not is_local(url.host) or server.has_extn("starttls")):
            server.starttls(context=tls)
        if url.user and url.password:
            _sign_in(server, url.user, url.password)
        yield server


def _sign_in(server: smtplib.SMTP, user: str, password: str) -> None:
    if (user + password).isascii():
        server.login(user, password)
        return
    # smtplib supports ASCII only; PLAIN is UTF-8 (RFC 4616).
    token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    server.ehlo_or_helo_if_needed()
    code, reply = server.docmd("AUTH", f"PLAIN {token}")
    if code != SIGNED_IN:
        raise smtplib.SMTPAuthenticationError(code, reply)
