"""The shape of a log line in production: which fields it may have, and what never.

A field that is declared here stands at the top of the line; any other goes into
`data`, and is not shown if a column of that name is secret or personal, or if the name
has a word of what is never logged. Out of every text is taken what is a secret of the
settings, a signed value, a token or somebody's address.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sqlalchemy import MetaData
from structlog.typing import EventDict

from bulwark.config import Config

if TYPE_CHECKING:
    from bulwark.events import Kind

# Each field with its JSON type and what it means.
FIELDS: dict[str, tuple[str, str]] = {
    "timestamp": ("string", "when, in UTC"),
    "level": ("string", "debug, info, warning, error or critical"),
    "event": ("string", "what happened: a name of the catalogue, or words"),
    "logger": ("string", "which part wrote the line; `bulwark` is the base"),
    "service": ("string", "the service's short name"),
    "version": ("string", "the service's version"),
    "host": ("string", "the service's domain"),
    "request_id": ("string", "the request, as the proxy's log and the answer have it"),
    "method": ("string", "the request's method"),
    "route": ("string", "the route's template, never the path"),
    "status": ("integer", "the answer's status"),
    "milliseconds": ("number", "how long the answer took"),
    "description": ("string", "what an event means"),
    "user_id": ("integer", "whom it concerns"),
    "actor_id": ("integer", "who did it"),
    "address": ("string", "the network address that it came from"),
    "network": ("string", "the network that limits count for"),
    "user_agent": ("string", "what the browser says of itself"),
    "session": ("string", "a mark of the session, which opens nothing"),
    "reason": ("string", "why"),
    "audit": ("string", "its link in the audit trail, as row:mac"),
    "factor": ("string", "which factor it is about"),
    "new_device": ("boolean", "whether the account was never used from there"),
    "told": ("boolean", "whether a mail about it was sent"),
    "action": ("string", "what was done or tried"),
    "permission": ("string", "which permission was missing"),
    "permissions": ("array", "which permissions it has now"),
    "added": ("array", "which permissions it got"),
    "removed": ("array", "which permissions it lost"),
    "requires_second_factor": ("boolean", "whether the role requires a second factor"),
    "role": ("string", "which role"),
    "given": ("boolean", "whether it was given or taken"),
    "by": ("string", "who did it, if it was no person with an account"),
    "ended": ("integer", "how many sessions ended"),
    "token_id": ("integer", "which access token, by its number"),
    "days": ("integer", "for how many days"),
    "limit": ("string", "which limit was reached"),
    "row": ("integer", "a row of the audit trail"),
    "mac": ("string", "the link of that row"),
    "part": ("string", "which part of the service: web, worker or metrics"),
    "job": ("string", "which job failed"),
    "fault": ("string", "what is wrong with the audit trail"),
    "of": ("string", "which event's lines were left out"),
    "count": ("integer", "how many of them"),
    "mail": ("string", "which mail, by its number"),
    "file": ("string", "the name of a backup"),
    "bytes": ("integer", "its size"),
    "rows": ("integer", "how many rows it holds"),
    "made": ("string", "when it was made"),
    "checks": ("object", "what is not well, by the check that found it"),
    "exception": ("array", "what was raised, without values of variables"),
    "data": ("object", "what your own lines add"),
}
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (Mapping,),
}
ALWAYS = ("timestamp", "level", "event", "logger", "service", "version", "host")
REDACTED = "[redacted]"
# A field with one of these words in its name is never shown.
WORDS = frozenset(
    """
    authorization body code codes cookie cookies credential credentials csrf dsn email
    jwt key link magic mail otp passcode passwd password passwords passkey pepper phone
    pin private secret secrets seed session token tokens totp uri url
    """.split()  # noqa: SIM905  as words are read
)
# Up to the last `@`: a password may hold a `/`. An `https://key@host` has a key alone.
PASSWORD_IN_URL = re.compile(r"(?:://[^:@]*:|^https?://)(.+)@", re.DOTALL)
# Where a parser cuts a password that it takes for a part of a URL, or of a line.
CUTS = re.compile(r"[\s#/?@:\[\]%&=\\\"']+")
LEAST = 8  # characters: a shorter secret would be found everywhere
PATTERNS = (
    # What repeats begins where nothing of its kind is in front: at once in a long text.
    # Signed values of links and cookies, and access tokens.
    (re.compile(r"(?<![\w-])[\w-]{8,}\.[\w-]{6}\.[\w-]{20,}", re.ASCII), REDACTED),
    (re.compile(r"\bbwk_[\w-]{20,}", re.ASCII), REDACTED),
    # A name and a password in an address, and a person's mail address.
    # Its length is bounded, for each `://` of a long text begins a search.
    (re.compile(r"(?<=://)[^\s\"'<>@:/]{0,64}:[^\s\"'<>]{0,128}@"), f"{REDACTED}@"),
    (re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+\.[\w.-]*\w"), "[address]"),
)
# What every text has that one of them finds.
HINT = r"@|bwk_|\.[\w-]{6}\."
# Fields that hold nothing from outside.
OURS = frozenset({"timestamp", "level", "logger", "request_id", "route", "audit"})


class Shape:
    """Gives lines their shape; a processor of structlog."""

    def __init__(self) -> None:
        self._about: dict[str, str] = {}
        self._names: frozenset[str] = frozenset()
        self._secrets: tuple[str, ...] = ()
        self._suspect = re.compile(HINT)

    def learn(
        self, config: Config, names: Iterable[str], secrets: Iterable[str]
    ) -> None:
        """Remember what all lines say, and what none may: fields and texts."""
        self._names = frozenset(names)
        self._about = {
            "service": config.slug,
            "version": config.version,
            "host": config.domain,
        }
        found = {secret for secret in secrets if len(secret) >= LEAST}
        self._secrets = tuple(sorted(found, key=len, reverse=True))
        # Most texts are harmless, and one look tells so.
        self._suspect = re.compile("|".join([HINT, *map(re.escape, self._secrets)]))

    def __call__(self, _: object, __: str, line: EventDict) -> EventDict:
        """Return the line as it is written."""
        known: dict[str, Any] = {"data": {}, **self._about}
        for name, value in line.items():
            if value is None:
                continue
            if name in OURS:
                known[name] = value
            elif _is_declared(name, value):
                known[name] = self._clean(value)
            else:
                known["data"][name] = self._data(name, value)
        if not known["data"]:
            del known["data"]
        return known

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


def _is_declared(name: str, value: Any) -> bool:
    """Tell whether a field is one of ours; a team's may have the name of one."""
    kind, _ = FIELDS.get(name, ("", ""))
    return isinstance(value, TYPES.get(kind, ())) and (
        kind == "boolean" or not isinstance(value, bool)
    )


def names_of(models: MetaData) -> Iterable[str]:
    """Yield the columns that are declared to hold what is secret or personal."""
    for table in models.sorted_tables:
        yield from (column.key for column in table.columns if "data" in column.info)


def secrets_of(settings: Any) -> Iterable[str]:
    """Yield what is secret in settings, in the forms in which it may turn up."""
    for declared in fields(settings):
        if declared.metadata.get("secret"):
            yield from _forms(getattr(settings, declared.name))


def _forms(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
        found = PASSWORD_IN_URL.search(value)
        for form in (found[1], unquote(found[1])) if found else ():
            # An exception quotes the part that was taken for a host or a port.
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


def schema(catalogue: Mapping[str, "Kind"]) -> dict[str, Any]:
    """Return what every line in production fits: JSON Schema, draft 2020-12."""
    properties: dict[str, Any] = {
        name: {"type": kind, "description": meaning}
        for name, (kind, meaning) in FIELDS.items()
    }
    kept = [name for name, kind in catalogue.items() if kind.kept]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A log line",
        "type": "object",
        "required": list(ALWAYS),
        "properties": properties,
        "additionalProperties": False,
        "allOf": [
            _required("description", sorted(catalogue)),
            _required("audit", sorted(kept)),
        ],
    }


def _required(field: str, events: list[str]) -> dict[str, Any]:
    return {
        "if": {"properties": {"event": {"enum": events}}},
        "then": {"required": [field]},
    }
