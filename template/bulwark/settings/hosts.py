"""Host names and addresses in the settings: normalized, or rejected."""

import re
from ipaddress import IPv6Address
from typing import NoReturn
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email

from bulwark.network import is_local
from bulwark.settings.fields import UnusableError

# Names of containers may contain underscores.
LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = re.compile(rf"{LABEL}(\.{LABEL})*")
LONGEST = 253  # RFC 1035, 2.3.4
BIND = re.compile(
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>[0-9]{1,5})", re.ASCII
)
LOCAL = re.compile(r"(?!\.|.*\.\.|.*\.\Z)[\w.!#$%&'*+/=?^`{|}~-]{1,64}", re.ASCII)
PORT = re.compile(r"(?<=[^:]):[0-9]+$")
PORTS = range(1, 1 << 16)


def service_name(text: str) -> str:
    """Return the service's name: one line of printable characters, as for headers."""
    if not text.strip() or not text.isprintable():
        raise UnusableError("a name must be one line of printable characters")
    return text


def host_name(text: str) -> str:
    """Return the ASCII form of one host, such as `www.example.com`."""
    host = text.strip().lower().removesuffix(".")
    if host.startswith("[") and host.endswith("]"):
        return f"[{_ipv6(host)}]"
    if not host.isascii():
        host = _ascii(host)
    if not HOST.fullmatch(host) or len(host) > LONGEST:
        _refuse(text)
    return host


def host_names(text: str) -> tuple[str, ...]:
    """Parse a list of hosts, separated by commas or spaces; ports are dropped.

    A leading dot means all subdomains, which production rejects.
    """
    names = [PORT.sub("", name) for name in re.split(r"[\s,]+", text) if name]
    return tuple(
        name[: name.startswith(".")] + host_name(name.removeprefix("."))
        for name in names
    )


def base_url(text: str) -> str:
    """Parse the base of links, such as `https://www.example.com`."""
    if not text.strip():
        return ""
    wrong = UnusableError(f"{text!r} is not https:// and a host, like https://shop.de")
    try:
        url = urlsplit(text.strip())
        port = "" if url.port is None else f":{url.port}"
    except ValueError:
        raise wrong from None
    more = url.path.strip("/") or url.query or url.fragment or "@" in url.netloc
    if url.scheme != "https" or not url.hostname or more:
        # A user name and a password are not allowed here, and are not shown.
        raise UnusableError("it contains a user name") if "@" in text else wrong
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"https://{host_name(host)}{port}"


def origins(text: str) -> tuple[str, ...]:
    """Parse a list of origins, separated by commas or spaces, as browsers send them.

    `http://` is only for this machine.
    """
    return tuple(_origin(one) for one in re.split(r"[\s,]+", text) if one)


def _origin(text: str) -> str:
    try:
        url = urlsplit(text)
        port = "" if url.port is None else f":{url.port}"
    except ValueError:
        url, port = urlsplit(""), ""
    host = url.hostname or ""
    safe = url.scheme == "https" or (url.scheme == "http" and is_local(host))
    written = f"{url.scheme}://{url.netloc}"
    if not host or not safe or "@" in url.netloc or text.rstrip("/") != written:
        raise UnusableError(
            f"{text!r} is not https:// and a host, like https://shop.de"
        )
    host = f"[{host}]" if ":" in host else host_name(host)
    is_default = port == (":443" if url.scheme == "https" else ":80")
    return f"{url.scheme}://{host}{'' if is_default else port}"


def service_url(text: str) -> str:
    """Parse the URL of another service; `http://` is only for this machine."""
    if not text.strip():
        return ""
    if "@" in text:
        raise UnusableError("it must not contain a user name")
    url = urlsplit(text.strip())
    safe = url.scheme == "https" or (
        url.scheme == "http" and is_local(url.hostname or "")
    )
    if not (url.hostname and safe) or url.query or url.fragment:
        raise UnusableError(f"{text!r} is not https://, a host and a path")
    return text.strip().rstrip("/")


def http_proxy(text: str) -> str:
    """Parse the URL of an HTTP proxy: `http://`, a host and a port."""
    if not text.strip():
        return ""
    url = urlsplit(text.strip())
    try:
        whole = url.scheme == "http" and url.hostname and url.port
    except ValueError:
        whole = False
    if not whole or url.username or url.path.strip("/") or url.query or url.fragment:
        raise UnusableError("it is not http://, a host and a port")
    return text.strip().rstrip("/")


def email_address(text: str) -> str:
    """Parse a single address, and return it with its domain in ASCII."""
    local, _, domain = text.strip().rpartition("@")
    if not text.strip():
        return ""
    if not LOCAL.fullmatch(local) or domain.startswith("["):
        raise UnusableError(
            f"{text!r} is not a single address, like no-reply@example.com, with ASCII"
            " characters before the @"
        )
    return f"{local}@{host_name(domain)}"


def host_and_port(text: str) -> str:
    """Check an address like `127.0.0.1:9464` or `[::1]:9464`."""
    found = BIND.fullmatch(text)
    if not found or int(found["port"]) not in PORTS:
        raise UnusableError(
            f"{text!r} is not a host and a port, like 127.0.0.1:9464 or [::1]:9464"
        )
    if found["host"].startswith("["):
        _ipv6(found["host"])
    return text


def _ascii(host: str) -> str:
    try:
        checked = validate_email(f"a@{host}", check_deliverability=False)
    except EmailNotValidError:
        _refuse(host)
    return str(checked.ascii_domain)


def _ipv6(host: str) -> str:
    try:
        return str(IPv6Address(host.strip("[]")))
    except ValueError:
        _refuse(host)


def _refuse(text: str) -> NoReturn:
    raise UnusableError(f"{text!r} is not one host name, like www.example.com")
