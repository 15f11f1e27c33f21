"""Emails made from one template: both parts, their headers, and what they refuse."""

import email
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.message import Message
from typing import Any

import pytest
from flask import Flask
from jinja2 import ChoiceLoader, DictLoader

from bulwark import mail
from bulwark.database import db
from bulwark.mail import outbox, rendering
from tests.bulwark.mail.conftest import Inbox, smtp_server, waiting
from tests.conftest import Visitor

DIGEST = """{% extends "bulwark/email.html" %}
{% block content %}
<h1>Your week, {{ name }}</h1>
<p>You have <strong>{{ count }}</strong> new orders &amp; more,
  see <a href="{{ link('account.index') }}">your account</a>.</p>
<table><tr><th>Order</th><th>Price</th></tr>
<tr><td>{{ name }}</td><td>5&nbsp;€</td></tr></table>
<ul><li>first</li><li>second</li></ul>
<p><a class="button" href="{{ url or link('account.index') }}">Open</a></p>
<p>Bye,<br>the shop</p>
{% endblock %}"""
TEXT = """Your week, {name}

You have 3 new orders & more, see your account (https://localhost/account).

Order | Price
{name} | 5\xa0€

- first
- second

Open:

https://localhost/account

Bye,
the shop
"""
NAMES = (
    *("Zoë", "Личный кабинет", "日本語 🎉", "\u202eevil\u2066", "=?utf-8?q?a?="),
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;"),
    *("{{ 7*7 }}", "</title></head><body onload=alert(1)>", "x" * 2000, ".", "From x"),
)


@pytest.fixture
def app_with(app: Flask) -> Iterator[Callable[[str], Flask]]:
    """Return the app with a template `test.html`."""
    loader = app.jinja_env.loader
    assert loader

    def add(content: str) -> Flask:
        app.jinja_env.loader = ChoiceLoader(
            [DictLoader({"test.html": content}), loader]
        )
        app.jinja_env.cache.clear()  # type: ignore[union-attr]
        return app

    yield add
    app.jinja_env.loader = loader
    app.jinja_env.cache.clear()  # type: ignore[union-attr]


def send(app: Flask, subject: str = "Your week", **values: Any) -> bool:
    with app.app_context():
        given = {"name": "Zoë", "count": 3, "url": "", **values}
        sent = mail.send_templated(subject, "zoe@example.org", "test.html", **given)
        db.session.commit()
    return sent


def received(app: Flask, monkeypatch: pytest.MonkeyPatch, inbox: Inbox) -> None:
    """Let a real mail server receive what waits."""
    with smtp_server(inbox) as port, app.app_context():
        url = f"smtp://localhost:{port}"
        changed = replace(app.extensions["bulwark"], mail_url=url)
        monkeypatch.setitem(app.extensions, "bulwark", changed)
        outbox.deliver_due()


def part(message: Message, kind: str) -> str:
    """Decode a part as the old parser does, which shares little with the writer."""
    for found in message.walk():
        if found.get_content_type() == kind:
            payload = found.get_payload(decode=True)
            assert isinstance(payload, bytes)
            return payload.decode().replace("\r\n", "\n")
    raise AssertionError(kind)


def test_both_parts_of_an_email_are_exact_whatever_its_values_are(
    app_with: Callable[[str], Flask], monkeypatch: pytest.MonkeyPatch
):
    app, inbox = app_with(DIGEST), Inbox()
    for name in NAMES:
        send(app, name=name)
    received(app, monkeypatch, inbox)
    assert len(inbox.letters) == len(NAMES)
    for name, letter in zip(NAMES, inbox.letters, strict=True):
        assert max(map(len, letter.content.split(b"\r\n"))) <= 998  # RFC 5322, 2.1.1
        message = email.message_from_bytes(letter.content)
        html = part(message, "text/html")
        assert part(message, "text/plain") == TEXT.format(name=name)
        assert "<script" not in html
        assert "<img" not in html
        assert html.count("<body") == 1
        assert 'href="https://localhost/account"' in html


def test_each_element_has_its_style_and_the_email_the_name_of_the_service(
    app_with: Callable[[str], Flask], visitor: Visitor
):
    app = app_with(DIGEST)
    send(app)
    body = visitor.letters()[0].get_body(("html",))
    assert body
    html = body.get_content()
    assert '<h1 style="' in html
    assert re.search('<a style="[^"]*background: #0172ad[^"]*" class="button"', html)
    assert app.extensions["bulwark"].name in html
    assert "<style" not in html


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<script>alert(1)</script>", "can't contain <script>"),
        ("<iframe src='https://a.example'></iframe>", "can't contain <iframe>"),
        ("<form><input></form>", "can't contain <form>"),
        ("<style>p { color: red }</style>", "can't contain <style>"),
        ("<link rel=stylesheet href=https://a.example>", "can't contain <link>"),
        ("<svg onload=alert(1)></svg>", "can't contain <svg>"),
        ("<img src=https://a.example/pixel.png>", "loads no images"),
        ("<img src=data:image/svg+xml;base64,AAAA>", "loads no images"),
        ("<p onclick=alert(1)>x</p>", "attribute onclick"),
        ("<p style='background: URL(https://a.example)'>x</p>", "can't load"),
        ("<p style='background: u&#114;l(//a.example)'>x</p>", "can't load"),
        ("<a href='/orders'>x</a>", "needs a whole address"),
        ("<a href='javascript:alert(1)'>x</a>", "begins with https"),
        ("<a href='java&#10;script:alert(1)'>x</a>", "begins with https"),
        ("<a href='{{ value }}'>x</a>", "begins with https"),
        ("<table background=https://a.example><tr></table>", "attribute background"),
        ("<meta http-equiv=refresh content=0>", "attribute http-equiv"),
    ],
)
def test_what_runs_or_loads_something_is_refused_before_it_is_queued(
    app_with: Callable[[str], Flask], content: str, reason: str
):
    app = app_with(
        '{% extends "bulwark/email.html" %}{% block content %}'
        + content
        + "{% endblock %}"
    )
    with pytest.raises(rendering.EmailContentError, match=reason):
        send(app, value="javascript:alert(1)")
    with app.app_context():
        assert waiting() == 0


@pytest.mark.parametrize("broken", ["a\r\nBcc: all@example.org", "a\nb", "a\u2028b"])
def test_a_subject_or_an_address_can_not_add_a_header(
    app_with: Callable[[str], Flask], broken: str
):
    app = app_with(DIGEST)
    with pytest.raises(ValueError, match="one line"):
        send(app, broken)
    with app.app_context(), pytest.raises(ValueError, match=r"(?i)line|invalid|ascii"):
        mail.send_templated("Hello", f"{broken}@example.org", "test.html", count=3)


# --- Lists ----------------------------------------------------------------------------


def test_an_email_of_a_list_has_the_headers_that_receivers_want(
    app_with: Callable[[str], Flask], monkeypatch: pytest.MonkeyPatch
):
    app, inbox = app_with(DIGEST), Inbox()
    send(app, unsubscribe="weekly-digest")
    send(app)
    received(app, monkeypatch, inbox)
    bulk, single = (email.message_from_bytes(one.content) for one in inbox.letters)
    content = inbox.letters[0].content
    line = re.search(rb"^List-Unsubscribe: <(\S+)>\r$", content, re.MULTILINE)
    assert line  # on one line, as a URL that no client has to join
    assert line[1].startswith(b"https://localhost/unsubscribe/weekly-digest.")
    assert bulk["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert single["List-Unsubscribe"] is single["List-Unsubscribe-Post"] is None
    _, address = app.extensions["bulwark"].sender
    for message in (bulk, single):
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Date"].endswith("+0000")
        assert re.fullmatch(r"<[\w-]+@[\w.-]+>", message["Message-ID"])
        assert message["Message-ID"].endswith(f"@{address.partition('@')[2]}>")
    assert line[1].decode() in part(bulk, "text/plain")
    assert "unsubscribe" not in part(single, "text/html")
    assert b"zoe" not in line[1]


def test_one_click_ends_the_list_for_that_address_only(
    app_with: Callable[[str], Flask], visitor: Visitor
):
    app = app_with(DIGEST)
    send(app, unsubscribe="digest")
    path = link_of(visitor)
    client = app.test_client()  # a provider: no cookies, no referrer, no token
    for _ in range(2):
        answer = client.post(path, data={"List-Unsubscribe": "One-Click"})
        assert answer.status_code == 200
        assert "unsubscribed" in answer.text
        assert "Set-Cookie" not in answer.headers
    assert not send(app, unsubscribe="digest")
    assert send(app, unsubscribe="news")
    assert send(app)
    with app.app_context():
        given: dict[str, Any] = {"count": 3, "unsubscribe": "digest"}
        assert mail.send_templated("x", "ada@example.org", "test.html", **given)
        assert not mail.send_templated("x", " ZOE@example.org", "test.html", **given)
        db.session.rollback()


def link_of(visitor: Visitor) -> str:
    """Return the path in the header of the last email."""
    url = str(visitor.letters()[-1]["List-Unsubscribe"])
    return url.strip("<>").removeprefix("https://localhost")


def test_opening_the_link_changes_nothing_and_the_page_can_undo(
    app_with: Callable[[str], Flask], visitor: Visitor
):
    app = app_with(DIGEST)
    send(app, unsubscribe="weekly-digest")
    path = link_of(visitor)
    page = visitor.get(path).text
    assert "weekly digest" in page
    assert "csrf_token" not in page.partition("<main")[2].partition("</main>")[0]
    assert send(app, unsubscribe="weekly-digest")
    assert visitor.client.post(path, data={}).status_code == 400
    assert visitor.client.post(path, data={"List-Unsubscribe": "x"}).status_code == 400
    assert send(app, unsubscribe="weekly-digest")
    visitor.client.post(path, data={"List-Unsubscribe": "One-Click"})
    assert not send(app, unsubscribe="weekly-digest")
    visitor.client.post(path, data={"List-Unsubscribe": "Undo"})
    assert send(app, unsubscribe="weekly-digest")


def test_a_link_that_was_changed_or_made_up_unsubscribes_nobody(
    app_with: Callable[[str], Flask], visitor: Visitor
):
    app = app_with(DIGEST)
    send(app, unsubscribe="digest")
    path = link_of(visitor)
    data, dot, signature = path.rpartition(".")
    for wrong in (f"{data}x{dot}{signature}", f"{path}x", "/unsubscribe/x", data):
        answer = visitor.client.post(wrong, data={"List-Unsubscribe": "One-Click"})
        assert answer.status_code == 404, wrong
    assert send(app, unsubscribe="digest")


@pytest.mark.parametrize("name", ["Weekly Digest", "a\r\nBcc: x", "ä", "x" * 51])
def test_the_name_of_a_list_is_simple(app_with: Callable[[str], Flask], name: str):
    with pytest.raises(ValueError, match="name of a list"):
        send(app_with(DIGEST), unsubscribe=name)
