"""Limits of requests to the base's pages: their structure, and the length of fields.

The time to validate a field may grow with its length. So this table of lengths is
checked before any form reads a field. A form may set a lower limit, which it shows
beside the field. `input_validation` has the limits of all requests.
"""

from collections.abc import Iterator
from typing import Any

from flask import Flask, abort, request

from bulwark.mail.addresses import ADDRESS_LENGTH
from bulwark.web.input_validation import FORM, is_url

# The blueprints of the base.
BLUEPRINTS = frozenset(
    {
        "account",
        "addresses",
        "admin",
        "reauthentication",
        "security",
        "sign_up",
        "tokens",
    }
)
# Bytes of a body: two passwords of any characters, or a passkey.
BODY = 28 * 1024
FIELDS = 128  # values of one request; a role may have many permissions
PARTS = 32  # of a multipart form, each as costly to read as 50 other fields
MARKS = 4096  # commas and brackets in JSON: twice as many as two passwords may have

EMAIL = ADDRESS_LENGTH
PASSWORD = 1024  # far over the 64 of NIST SP 800-63B-4, 3.1.1.2
LENGTHS = {
    "email": 2 * EMAIL,  # so that a form can show that it is too long
    "password": PASSWORD,
    "new_password": PASSWORD,
    "code": 64,  # the longest is a recovery code, with spaces or hyphens
    "credential": 16 * 1024,  # a passkey with its certificates
    "next": 2048,
}
OTHERS = 1024
# A code may also be a number.
TEXTS = LENGTHS.keys() - {"code"}


def init_app(app: Flask) -> None:
    """Check each request before a form or the CSRF check reads it."""
    app.before_request(_check)


def _check() -> None:
    if request.blueprint not in BLUEPRINTS:
        return
    request.max_content_length = min(BODY, request.max_content_length or BODY)
    request.max_form_parts = PARTS
    _check_body()
    sent = [*request.args.items(multi=True), *request.form.items(multi=True), *_json()]
    if len(sent) > FIELDS:
        abort(400, f"Send {FIELDS} fields at most.")
    for name, value in sent:
        _check_field(name, value)


def _check_body() -> None:
    """Reject a body that takes long to parse for its length."""
    if request.is_json:
        body = request.get_data()
        if sum(map(body.count, (b",", b"[", b"{"))) > MARKS:
            abort(400, "Send fewer values.")
    elif request.mimetype == FORM and request.get_data().count(b"&") >= FIELDS:
        abort(400, f"Send {FIELDS} fields at most.")


def _check_field(name: str, value: Any) -> None:
    """Reject what would be costly, or what the stock forms do not expect."""
    most = LENGTHS.get(name, OTHERS)
    if len(name) > OTHERS or (isinstance(value, str) and len(value) > most):
        field = name if name in LENGTHS else "each field"
        abort(400, f"Use {most} characters at most for {field}.")
    if isinstance(value, dict | list):
        abort(400, "Send objects and lists only where a field takes them.")
    if name in TEXTS and not isinstance(value, str | None):
        abort(400, f"Send {name} as text.")
    if name == "next" and value and not is_url(value):
        abort(400, "Send a path of this service as next.")


def _json() -> Iterator[tuple[str, Any]]:
    """Yield the fields of a JSON body; one with a list has several values."""
    if not request.is_json:
        return
    sent = request.get_json()
    if not isinstance(sent, dict):
        abort(400, "Send a JSON object.")
    for name, value in sent.items():
        for one in value if isinstance(value, list) else [value]:
            yield name, one
