"""Rich text keeps its formatting, and nothing that runs, loads or imitates."""

import time
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask, render_template_string
from markupsafe import Markup
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text

from bulwark import RichText, db, sanitize_html
from bulwark.web.rich_text import (
    ATTRIBUTES,
    LONGEST_HTML,
    LONGEST_MARKDOWN,
    SCHEMES,
    TAGS,
    render_markdown,
)
from tests.bulwark.web.payloads import PAYLOADS

HARMLESS = ("lang", "title", "rel")  # on every element
FORMATTED = (
    '<p><b>bold</b> <a href="https://example.com/" '
    'rel="noopener noreferrer nofollow ugc">link</a></p>'
)


def markdown(source: str) -> Markup:
    """Render Markdown, if the service has the package."""
    pytest.importorskip("markdown_it")
    return render_markdown(source)


class Active(HTMLParser):
    """Collects what rich text must not have."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in TAGS:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if name not in {*ATTRIBUTES.get(tag, ()), *HARMLESS}:
                self.found.append(f"{tag} {name}")
            if name == "href" and urlsplit(value).scheme not in {"", *SCHEMES}:
                self.found.append(value)

    def handle_comment(self, data: str) -> None:
        self.found.append("a comment")

    def handle_decl(self, decl: str) -> None:
        self.found.append("a declaration")

    def handle_pi(self, data: str) -> None:
        self.found.append("an instruction")

    def unknown_decl(self, data: str) -> None:
        self.found.append("a declaration")


def test_this_test_finds_what_is_active():
    quiet = [p for p in PAYLOADS if not Active(p).found]
    assert len(quiet) < len(PAYLOADS) / 4  # those are text, or Markdown


@pytest.mark.parametrize("show", [sanitize_html, markdown])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_active_is_left(show: Callable[[str], Markup], payload: str):
    assert Active(show(payload)).found == []
    assert Active(show(f"<b>{payload}</b>\n\n{payload}")).found == []


def test_formatting_stays():
    assert sanitize_html(FORMATTED) == FORMATTED
    shown = markdown("# Title\n\n*a* ~~b~~\n\n|x|\n|-|\n|1|\n\n<https://example.com>")
    for kept in ("<em>a</em>", "<s>b</s>", "<td>1</td>", 'href="https://example.com"'):
        assert kept in shown


def test_html_in_markdown_is_shown_as_it_was_written():
    assert "&lt;b&gt;" in markdown("<b>x</b>")


def test_a_link_gives_the_other_site_neither_referrer_nor_rank():
    shown = sanitize_html("<a href=https://example.com/ rel=opener target=_blank>x</a>")
    assert 'rel="noopener noreferrer nofollow ugc"' in shown
    assert "target" not in shown


def test_a_template_shows_it_formatted_and_other_text_escaped(app: Flask):
    with app.app_context():
        shown = render_template_string(
            "{{ text | rich }}{{ text }}", text="<b>x</b><script>alert(1)</script>"
        )
    assert shown == (
        "<b>x</b>&lt;b&gt;x&lt;/b&gt;&lt;script&gt;alert(1)&lt;/script&gt;"
    )


def test_a_column_is_sanitized_when_it_is_written_and_when_it_is_read(app: Flask):
    notes = Table(
        "rich_notes_of_tests",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("text", RichText),
    )
    with app.app_context(), db.engine.begin() as connection:
        notes.create(connection)
        sent = "<b>x</b><script>alert(1)</script>"
        connection.execute(insert(notes).values(text=sent))
        connection.execute(insert(notes).values(text=None))
        raw = text("SELECT text FROM rich_notes_of_tests ORDER BY id")
        assert connection.scalars(raw).all() == ["<b>x</b>", None]
        # As an earlier release, or another program, may have stored it.
        stored = text("UPDATE rich_notes_of_tests SET text = :sent WHERE id = 1")
        connection.execute(stored, {"sent": sent})
        read = connection.scalars(select(notes.c.text).order_by(notes.c.id)).all()
        assert read == [Markup("<b>x</b>"), None]
        assert isinstance(read[0], Markup)
        notes.drop(connection)


@pytest.mark.parametrize("piece", ["<div><p>", "<b><i><a href=x>", "&", "<!--", "<"])
def test_no_html_takes_long_to_sanitize(piece: str):
    start = time.process_time()
    sanitize_html(piece * (LONGEST_HTML // len(piece)))
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "piece", ["[", "![[]()", "[a](", "*a ", "~~a", "> ", "- a\n", "|a", "[a]: /x\n"]
)
def test_no_markdown_takes_long_to_render(piece: str):
    start = time.process_time()
    markdown(piece * (LONGEST_MARKDOWN // len(piece)))
    assert time.process_time() - start < 3


def test_longer_text_is_shown_unformatted():
    assert sanitize_html("<b>" + "x" * LONGEST_HTML).startswith("&lt;b&gt;x")
    assert "<b>" not in markdown("<b>" + "x" * LONGEST_MARKDOWN)


def test_a_filter_of_the_teams_own_stays(app: Flask, monkeypatch: pytest.MonkeyPatch):
    from bulwark.web import rich_text

    monkeypatch.setitem(app.jinja_env.filters, "rich", str.upper)
    rich_text.init_app(app)
    with app.app_context():
        assert render_template_string("{{ 'x' | rich }}") == "X"
