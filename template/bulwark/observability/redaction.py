"""What is redacted in a log line.

A field in `data` is redacted if a column of that name is secret or personal, or if its
name contains a word for what is never logged. Secrets of the settings, signed values,
tokens and email addresses are redacted in every text.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import unquote

from sqlalchemy import MetaData
from structlog.typing import EventDict

from bulwark.observability.log_schema import is_declared
from bulwark.settings import Config

REDACTED = "[redacted]"
# A field with one of these words in its name is always redacted.
WORDS = frozenset(
    """
    authorization body code codes cookie cookies credential credentials csrf dsn email
    jwt key link magic mail otp passcode passwd password passwords passkey pepper phone
    pin private secret secrets seed session token tokens totp uri url
    """.split()  # noqa: SIM905  as words are read
)
# Up to the last `@`: a password may contain a `/`. `https://key@host` has only a key.
PASSWORD_IN_URL = re.compile(r"(?:://[^:@]*:|^https?://)(.+)@", re.DOTALL)
# Where a parser splits a password that it takes for a part of a URL, or of a line.
CUTS = re.compile(r"[\s#/?@:\[\]%&=\\\"']+")
LEAST = 8  # characters: a shorter secret would match everywhere
PATTERNS = (
    # Lookbehinds keep the search in a long text fast: no match starts inside another.
    # Signed values of links and cookies, and access tokens.
    (re.compile(r"(?<![\w-])[\w-]{8,}\.[\w-]{6}\.[\w-]{20,}", re.ASCII), REDACTED),
    (re.compile(r"\bbwk_[\w-]{20,}", re.ASCII), REDACTED),
    # A user name and a password in a URL, and email addresses. The length is bounded,
    # because each `://` in a long text starts a search.
    (re.compile(r"(?<=://)[^\s\"'<>@:/]{0,64}:[^\s\"'<>]{0,128}@"), f"{REDACTED}@"),
    (re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+\.[\w.-]*\w"), "[address]"),
)
# Every text that one of the patterns matches also matches this.
HINT = r"@|bwk_|\.[\w-]{6}\."
# Fields that contain nothing from outside.
OURS = frozenset({"timestamp", "level", "logger", "request_id", "route", "audit"})


class Shape:
    """A processor of structlog that sorts and redacts the fields of lines."""

    def __init__(self) -> None:
        self._about: dict[str, str] = {}
        self._names: frozenset[str] = frozenset()
        self._secrets: tuple[str, ...] = ()
        self._suspect = re.compile(HINT)

    def configure(
        self, config: Config, names: Iterable[str], secrets: Iterable[str]
    ) -> None:
        """Set the fields of all lines, and the fields and texts to redact."""
        self._names = frozenset(names)
        self._about = {
            "service": config.slug,
            "version": config.version,
            "host": config.domain,
        }
        found = {secret for secret in secrets if len(secret) >= LEAST}
        self._secrets = tuple(sorted(found, key=len, reverse=True))
        # Most texts contain nothing to redact, and one search shows that.
        self._suspect = re.compile("|".join([HINT, *map(re.escape, self._secrets)]))

    def __call__(self, _: object, __: str, line: EventDict) -> EventDict:
        """Return the line in its final form."""
        known: dict[str, Any] = {"data": {}, **self._about}
        for name, value in line.items():
            if value is None:
                continue
            if name in OURS:
                known[name] = value
            elif is_declared(name, value):
                known[name] = self._clean(value)
            else:
                known["data"][name] = self._data(name, value)
        if not known["data"]:
            del known["data"]
        return known

    def clean_text(self, text: str) -> str:
        """Return a text without secrets, tokens and email addresses."""
        return str(self._clean(text))

    def _data(self, name: str, value: Any) -> Any:
        words = re.split(r"[^a-z0-9]+", name.lower())
        if name in self._names or WORDS.intersection(words):
            return REDACTED
        if isinstance(value, Mapping):
            return {str(k): self._data(str(k), v) for k, v in value.items()}
        return self._clean(value)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            if not self._suspect.search(value):
                return value
            for secret in self._secrets:
                value = value.replace(secret, REDACTED)
            for pattern, instead in PATTERNS:
                value = pattern.sub(instead, value)
            return value
        if isinstance(value, Mapping):
            return {str(k): self._clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(v) for v in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._clean(str(value))


def names_of(models: MetaData) -> Iterable[str]:
    """Yield the columns that are declared as secret or personal."""
    for table in models.sorted_tables:
        yield from (column.key for column in table.columns if "data" in column.info)


def secrets_of(settings: Any) -> Iterable[str]:
    """Yield the secrets in settings, in the forms in which they may appear."""
    for declared in fields(settings):
        if declared.metadata.get("secret"):
            yield from _forms(getattr(settings, declared.name))


def _forms(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
        found = PASSWORD_IN_URL.search(value)
        for form in (found[1], unquote(found[1])) if found else ():
            # An exception may quote a part that was taken for a host or a port.
            yield from (form, *CUTS.split(form))
    elif isinstance(value, bytes):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(value).decode().rstrip("=")
        yield value.hex()
    elif isinstance(value, Mapping):
        yield from _forms(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _forms(part)
