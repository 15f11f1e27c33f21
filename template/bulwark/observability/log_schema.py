"""The fields of a log line in production.

A field that is declared here is at the top level of the line. Any other is in `data`.
"""

from collections.abc import Mapping
from typing import Any

# Each field with its JSON type and its meaning.
FIELDS: dict[str, tuple[str, str]] = {
    "timestamp": ("string", "the time, in UTC"),
    "level": ("string", "debug, info, warning, error or critical"),
    "event": ("string", "what happened: a name from the catalogue, or a message"),
    "logger": ("string", "the logger; `bulwark` is the base's"),
    "service": ("string", "the service's short name"),
    "version": ("string", "the service's version"),
    "host": ("string", "the service's domain"),
    "request_id": (
        "string",
        "the request's id, as in the proxy's log and the response",
    ),
    "method": ("string", "the request's method"),
    "route": ("string", "the route's template, never the path"),
    "status": ("integer", "the response's status"),
    "milliseconds": ("number", "how long the response took"),
    "description": ("string", "the event's meaning"),
    "user_id": ("integer", "the user concerned"),
    "actor_id": ("integer", "the user who did it"),
    "address": ("string", "the client's IP address"),
    "network": ("string", "the client's network, which rate limits apply to"),
    "user_agent": ("string", "the User-Agent header of the request"),
    "session": ("string", "an identifier of the session, which gives no access"),
    "reason": ("string", "why it happened"),
    "audit": ("string", "the event's link in the audit trail, as row:mac"),
    "factor": ("string", "the factor concerned"),
    "new_device": ("boolean", "whether this device is new for the account"),
    "told": ("boolean", "whether an email about it was sent"),
    "action": ("string", "what was done or attempted"),
    "permission": ("string", "the missing permission"),
    "permissions": ("array", "the new permissions"),
    "added": ("array", "the added permissions"),
    "removed": ("array", "the removed permissions"),
    "requires_second_factor": ("boolean", "whether the role requires a second factor"),
    "role": ("string", "the role"),
    "given": ("boolean", "whether the role was assigned, not revoked"),
    "by": ("string", "who did it, if not a user with an account"),
    "ended": ("integer", "how many sessions ended"),
    "terms": ("string", "the version of the terms that was accepted"),
    "fields": ("array", "the fields that were changed"),
    "token_id": ("integer", "the access token's id"),
    "days": ("integer", "the number of days"),
    "limit": ("string", "the limit that was reached"),
    "row": ("integer", "a row of the audit trail"),
    "mac": ("string", "the link of that row"),
    "part": ("string", "the part of the service: web, worker or metrics"),
    "job": ("string", "the job that failed"),
    "fault": ("string", "what is wrong with the audit trail"),
    "of": ("string", "the event whose lines were left out"),
    "count": ("integer", "how many"),
    "mail": ("string", "the email's id"),
    "file": ("string", "the name of a backup"),
    "bytes": ("integer", "the size of the backup"),
    "rows": ("integer", "the number of rows in the backup"),
    "made": ("string", "when the backup was created"),
    "seconds": ("number", "how long it took"),
    "checks": ("object", "what is wrong, by the check that failed"),
    "exception": ("array", "the exception, without values of variables"),
    "data": ("object", "the fields of your own lines"),
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


def schema(events: Mapping[str, bool]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of every line in production.

    Args:
        events: the names of events, and whether each is in the audit trail.
    """
    properties: dict[str, Any] = {
        name: {"type": kind, "description": meaning}
        for name, (kind, meaning) in FIELDS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A log line",
        "type": "object",
        "required": list(ALWAYS),
        "properties": properties,
        "additionalProperties": False,
        "allOf": [
            _required("description", sorted(events)),
            _required(
                "audit", sorted(name for name, audited in events.items() if audited)
            ),
        ],
    }


def is_declared(name: str, value: Any) -> bool:
    """Return whether a field is one of the base's; an app's may have the same name."""
    kind, _ = FIELDS.get(name, ("", ""))
    return isinstance(value, TYPES.get(kind, ())) and (
        kind == "boolean" or not isinstance(value, bool)
    )


def _required(field: str, events: list[str]) -> dict[str, Any]:
    return {
        "if": {"properties": {"event": {"enum": events}}},
        "then": {"required": [field]},
    }
