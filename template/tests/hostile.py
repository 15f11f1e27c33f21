"""Hostile requests: what no browser sends, to each route of a service.

They come from a visitor, a person and an administrator, in an order that a seed gives.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from flask import Flask
from werkzeug.routing import Rule

from bulwark.web.access import ADMINISTRATOR
from tests.conftest import Visitor, add_person
from tests.hostile_values import BYTES, HEADERS, JSON, PLAUSIBLE, TEXTS, VALUES

STATE = re.compile(r'"wan_state": ?"([^"]+)"')
FIELD = re.compile(r'name="([\w-]+)"')
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
FAILED = 500
KNOWN = ("email", "password", "next", "code", "name", "reason", "credential", "q")
ENTER_EVERY = 200
# One ends the session that the others need, one answers with files.
LEFT_OUT = ("security.logout", "static")


class Sender(Visitor):
    """Somebody who sends hostile requests: a visitor, or a person with some roles."""

    def __init__(self, app: Flask, mailbox: Path, *roles: str, known: bool) -> None:
        super().__init__(app, mailbox)
        self.roles = roles
        self.known = known
        self.accounts = 0
        self.token = ""

    def enter(self) -> None:
        """Sign in to a new account, for acts of others may have locked the last one."""
        if self.known and not self.is_signed_in():
            self.client = self.app.test_client()
            self.accounts += 1
            name = f"{'-'.join(self.roles) or 'zoe'}-{self.accounts}@example.org"
            self.sign_in(add_person(self.app, name, *self.roles))
        self.token = self.csrf_token("/reset")


class Attack:
    """Sends requests to an app, and counts the statuses of the answers."""

    def __init__(self, app: Flask, mailbox: Path, seed: int) -> None:
        self.senders = [
            Sender(app, mailbox, known=False),
            Sender(app, mailbox, known=True),
            Sender(app, mailbox, ADMINISTRATOR, known=True),
        ]
        self.random = random.Random(seed)
        self.rules = [r for r in app.url_map.iter_rules() if r.endpoint not in LEFT_OUT]
        self.fields: dict[str, dict[str, None]] = {}
        self.hostility = 1.0
        self.states: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.failures: dict[str, str] = {}

    @property
    def failed(self) -> int:
        """How many answers were 5xx."""
        return sum(n for status, n in self.statuses.items() if status >= FAILED)

    def run(self, requests: int) -> None:
        """Send so many requests, to each route as many."""
        for number in range(requests):
            if number % ENTER_EVERY == 0:
                self._enter()
            rule = self.rules[number % len(self.rules)]
            self._send(rule, self.random.choice(self.senders))

    def _enter(self) -> None:
        for sender in self.senders:
            sender.enter()
        if not self.fields:
            self._look_at_pages()
        self._ask_for_states()

    def _ask_for_states(self) -> None:
        """Get what pages sign for the answer of a passkey, to send it elsewhere."""
        asked = {"/login/passkey": 0, "/verify/passkey": 1, "/account/passkeys": 1}
        for path, sender in asked.items():
            answer = self.senders[sender].send(path, {"name": "x"})
            if found := STATE.search(answer.text):
                self.states = [*self.states[-9:], found[1]]

    def _send(self, rule: Rule, sender: Sender) -> None:
        # Of some requests most values are plausible, so that a view uses the others.
        self.hostility = self.random.choice((1.0, 0.5, 0.2))
        usual = sorted(rule.methods or METHODS)
        method = self.random.choice(usual if self.random.random() < 0.9 else METHODS)
        path = self._path(rule)
        options = self._body(rule) if method in UNSAFE else {}
        options["headers"] = self._headers(sender, method)
        if self.random.random() < 0.5:
            options["query_string"] = self._query(rule)
        raised = ""
        try:
            answer = sender.client.open(path, method=method, **options)
            status = answer.status_code
            answer.close()
        except Exception as error:  # noqa: BLE001
            status, raised = FAILED, repr(error)
        self.statuses[status] += 1
        if status >= FAILED:
            example = f"{raised[:300]} {path[:200]!r} {options!r}"
            self.failures[f"{method} {rule.rule}"] = example[:1500]

    def _text(self) -> str:
        hostile = self.random.random() < self.hostility
        return self.random.choice(TEXTS if hostile else PLAUSIBLE)

    def _bytes(self) -> bytes:
        if self.random.random() < 0.2 * self.hostility:
            return self.random.choice(BYTES)
        return self._text().encode("utf-8", "surrogatepass")

    def _path(self, rule: Rule) -> str:
        """Return the rule's path; each part that varies is hostile or plausible."""

        def part(_: re.Match[str]) -> str:
            text = self.random.choice((*TEXTS, "1", "2", *self.states))
            sent = text.encode("utf-8", "surrogatepass")[:4000]
            return quote_from_bytes(sent, safe="") or "x"

        return re.sub(r"<[^>]+>", part, rule.rule)

    def _headers(self, sender: Sender, method: str) -> list[tuple[str, str]]:
        headers = {"Referer": "https://localhost/"}
        if method in UNSAFE and self.random.random() < 0.95:
            headers["X-CSRFToken"] = sender.token
        if self.random.random() < 0.3:
            headers["Accept"] = "application/json"
        if self.random.random() < 0.25:
            name, value = self.random.choice(HEADERS)
            headers[name] = value
        return list(headers.items())

    def _query(self, rule: Rule) -> str:
        if self.random.random() < 0.1:
            return self.random.choice(BYTES).decode("latin1")
        pairs = [(name, self._bytes()) for name in self._names(rule)]
        return "&".join(f"{name}={quote_from_bytes(value)}" for name, value in pairs)

    def _names(self, rule: Rule) -> list[str]:
        """Return some names of fields of the pages beside this one."""
        names = [*self.fields[_room(rule)], self.random.choice(KNOWN)]
        return [name for name in names if self.random.random() < 0.8]

    def _look_at_pages(self) -> None:
        """Learn the names of the fields of all pages, as everybody sees them."""
        for rule in self.rules:
            names = self.fields.setdefault(_room(rule), {})
            if rule.arguments or "GET" not in (rule.methods or ()):
                continue
            for sender in self.senders:
                names |= dict.fromkeys(FIELD.findall(sender.get(rule.rule).text))
            for name in ("csrf_token", "viewport"):
                names.pop(name, None)

    def _body(self, rule: Rule) -> dict[str, Any]:
        """Return a body as a form, as parts or as JSON."""
        names = self._names(rule)
        kind: Callable[[list[str]], dict[str, Any]] = self.random.choice(
            (self._form, self._form, self._json, self._json, self._parts, self._raw)
        )
        return kind(names)

    def _form(self, names: list[str]) -> dict[str, Any]:
        pairs = [name.encode() + b"=" + self._quoted() for name in names]
        return {
            "data": b"&".join(pairs),
            "content_type": "application/x-www-form-urlencoded",
        }

    def _quoted(self) -> bytes:
        sent = self._bytes()
        return sent if self.random.random() < 0.1 else quote_from_bytes(sent).encode()

    def _json(self, names: list[str]) -> dict[str, Any]:
        def value() -> Any:
            if self.random.random() < self.hostility:
                return self.random.choice((*VALUES, *TEXTS))
            return self.random.choice((1, "a", *PLAUSIBLE))

        body = json.dumps({name: value() for name in names}).encode()
        if self.random.random() < 0.3 * self.hostility:
            body = self.random.choice(JSON)
        return {"data": body, "content_type": "application/json"}

    def _parts(self, names: list[str]) -> dict[str, Any]:
        parts = []
        for name in names:
            filename = b'; filename="' + self._bytes()[:300] + b'"'
            with_file = filename if self.random.random() < 0.5 else b""
            label = b"; name=" + name.encode() if self.random.random() < 0.9 else b""
            parts.append(
                b"--x\r\nContent-Disposition: form-data"
                + (label + with_file).replace(b"\n", b"")
                + b"\r\n\r\n"
                + self._bytes()
                + b"\r\n"
            )
        end = b"--x--\r\n" if self.random.random() < 0.9 else b""
        return {
            "data": b"".join(parts) + end,
            "content_type": "multipart/form-data; boundary=x",
        }

    def _raw(self, _: list[str]) -> dict[str, Any]:
        kinds = ("application/json", "application/x-www-form-urlencoded", "text/plain")
        return {"data": self._bytes(), "content_type": self.random.choice(kinds)}


def _room(rule: Rule) -> str:
    """Return the blueprint of a route."""
    return str(rule.endpoint).rpartition(".")[0]
