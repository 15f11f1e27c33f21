"""URLs of servers in the settings, which may contain a password: parsed strictly, once.

A URL that is unambiguous works as written, even with a `#` or `/` in the password. The
service does not start with one that is ambiguous or invalid. The message contains no
part of the URL, because any part may belong to the password. Each cast returns the URL
with a percent-encoded password, so that every later parser finds the same parts.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo

from bulwark.settings.fields import UnusableError

ENCODE = (
    "percent-encode special characters in the user and the password: @ as %40, # as"
    " %23, / as %2F, ? as %3F, : as %3A, % as %25"
)
# Python's resolver raises an unexpected error for anything else.
LABELS = re.compile(r"[^.]{1,63}(\.[^.]{1,63})*\.?")
PLACE = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.,-]*)(:(?P<port>[0-9]*))?(?P<rest>[/?].*)?",
    re.ASCII | re.DOTALL,
)
# An `@` after these may end the password, or be part of a path or an option.
TWO_READINGS = re.compile(r"[^:]*[/?#]|[^:]*:[0-9]*[/?#]|.*@.*[/?#]|.*[/?#].*@")
UNFIT = re.compile("[\0-\x1f\x7f\ud800-\udfff]")
PORTS = range(1, 1 << 16)
TLS_FROM_THE_START = 465
MAIL_PORTS = {"smtp": 587, "smtps": TLS_FROM_THE_START}
POSTGRESQL = re.compile(r"postgres(ql)?(\+\w+)?")
# What all S3-compatible storages accept, in paths and in names.
BUCKET = re.compile(
    r"/(?P<name>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
    r"(?P<folder>(/[\w-]+)*)/?\?region=(?P<region>[a-z0-9-]+)",
    re.ASCII,
)


@dataclass(frozen=True)
class Server:
    """The parts of a URL; user and password are decoded."""

    scheme: str
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    host: str
    port: int | None
    rest: str

    def __str__(self) -> str:
        """Return the URL in a form that every parser reads in the same way."""
        user = "" if self.user is None else quote(self.user, safe="")
        if self.password is not None:
            user += f":{quote(self.password, safe='')}"
        at = "" if self.user is None else "@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{user}{at}{host}{port}{self.rest}"


@dataclass(frozen=True)
class Bucket:
    """A bucket of S3-compatible storage, and the start of its files' names."""

    endpoint: str
    name: str
    prefix: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)


def mail(text: str) -> str:
    """Parse APP_MAIL_URL; `mailbox:/folder` saves emails in a folder."""
    kind, _, folder = text.partition(":")
    if kind == "mailbox":
        return of_path("mailbox:", folder)
    return str(mail_server(text)) if text else ""


def mail_server(text: str) -> Server:
    """Return the mail server, with the user and the password."""
    server = _read(text, "smtp", "smtps")
    if not server.host or "," in server.host:
        raise UnusableError("it contains no host, or several")
    if "?" in server.rest:
        raise UnusableError("it must not have options; end it after the port")
    if server.rest not in ("", "/"):
        raise UnusableError(f"something follows the port; {ENCODE}")
    if server.user is not None and not (server.user and server.password):
        raise UnusableError(f"it has a user or a password, not both; {ENCODE}")
    if (server.scheme, server.port) == ("smtp", TLS_FROM_THE_START):
        raise UnusableError("port 465 uses TLS from the start; write smtps://")
    port = server.port or MAIL_PORTS[server.scheme]
    return Server(
        server.scheme, server.user, server.password, server.host, port, rest=""
    )


def redis(text: str) -> str:
    """Parse APP_REDIS_URL."""
    return str(_read(text, "redis", "rediss", "unix")) if text else ""


def uploads(text: str) -> str:
    """Parse APP_UPLOADS_URL."""
    server = _read(text, "https", "http") if text else None
    if server is None:
        return ""
    _bucket_in(server)
    return str(server)


def bucket(url: str) -> Bucket:
    """Return the parts of a URL from `uploads`."""
    return _bucket_in(_read(url, "https", "http"))


def database(text: str) -> str:
    """Parse APP_DATABASE_URL."""
    scheme, separator, place = text.strip().partition("://")
    if not text:
        return ""
    if scheme.lower() in ("sqlite", "sqlite+pysqlite") and separator:
        _, mark, options = place.partition("?")
        if mark and not all("=" in option for option in options.split("&")):
            raise UnusableError("a ? begins options; write it as %3F in a path")
        return f"sqlite://{place}"
    if POSTGRESQL.fullmatch(scheme.lower()):
        text = f"postgresql://{place}"
    server = _read(text, "postgresql", "sqlite")
    try:
        make_conninfo(**dict(parse_qsl(server.rest.partition("?")[2])))
    except ProgrammingError:
        raise UnusableError(
            "PostgreSQL does not know the options after its ?"
        ) from None
    return str(server)


def of_path(start: str, path: object) -> str:
    """Return the URL of a file or a folder, whatever characters its path has."""
    return start + quote(str(path), safe="/", errors="surrogateescape")


def path_of(url: str) -> str:
    """Return the path in a URL from `of_path`."""
    return unquote(url.partition(":")[2], errors="surrogateescape")


def _bucket_in(server: Server) -> Bucket:
    if not server.host or "," in server.host:
        raise UnusableError("it contains no host, or several")
    if not server.user or not server.password:
        raise UnusableError(
            "it needs a user and a password, which are the two parts of an access key;"
            f" {ENCODE}"
        )
    if not (found := BUCKET.fullmatch(server.rest)):
        raise UnusableError(
            "after the host, it needs a bucket and a region, such as"
            " /my-bucket?region=eu-central-1; a storage without regions accepts"
            " us-east-1"
        )
    place = Server(server.scheme, None, None, server.host, server.port, "")
    prefix = f"{found['folder'][1:]}/" if found["folder"] else ""
    return Bucket(
        str(place), found["name"], prefix, found["region"], server.user, server.password
    )


def _read(text: str, *schemes: str) -> Server:
    """Split a URL into its parts.

    Raises:
        UnusableError: it is invalid or ambiguous.
    """
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in schemes:
        raise UnusableError(f"it does not begin with {' or '.join(schemes)}, and ://")
    if re.search(r"\s#", rest):
        raise UnusableError("a comment needs its own line, and a space is %20")
    user, password, place = _credentials(rest)
    found = PLACE.fullmatch(place)
    if found is None or "#" in place:
        raise UnusableError(_fault_of(place))
    port = int(found["port"]) if found["port"] else None
    if port is not None and port not in PORTS:
        raise UnusableError("its port is not a number from 1 to 65535")
    host = found["host"].strip("[]")
    for name in filter(None, host.split(",")):
        if not LABELS.fullmatch(name):
            raise UnusableError("a host has 1 to 63 characters between its dots")
    return Server(scheme, user, password, host, port, found["rest"] or "")


def _credentials(rest: str) -> tuple[str | None, str | None, str]:
    """Return user and password, if there are any, and what follows them."""
    before, at, place = rest.rpartition("@")
    if UNFIT.search(rest):
        raise UnusableError(
            f"it contains a control character, or bytes that are not UTF-8; {ENCODE}"
        )
    if not at:
        return None, None, place
    if TWO_READINGS.match(before):
        raise UnusableError(f"it is ambiguous; {ENCODE}")
    user, colon, password = before.partition(":")
    return _decoded(user), _decoded(password) if colon else None, place


def _decoded(text: str) -> str:
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UnusableError("percent-encode UTF-8: ä is %C3%A4") from None
    if UNFIT.search(plain):
        raise UnusableError("a user or a password must not contain control characters")
    return plain


def _fault_of(place: str) -> str:
    if not place.isascii():
        return "write its host in ASCII, such as xn--mnchen-3ya.de for münchen.de"
    return f"it has no valid host and port; {ENCODE}"
