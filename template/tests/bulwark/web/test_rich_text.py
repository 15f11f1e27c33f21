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
from sqlalchemy.dialects import sqlite

from bulwark import RichText, db, sanitize_html
from bulwark.web.rich_text import (
    ATTRIBUTES,
    LONGEST_HTML,
    LONGEST_MARKDOWN,
    LONGEST_RESULT,
    TAGS,
    render_markdown,
)
from tests.bulwark.web.payloads import PAYLOADS

SCHEMES = {"http", "https", "mailto", "tel"}
ACTIVE = """
    base button embed form frame iframe img input link math meta noscript object script
    select style svg template textarea video
    action class formaction id name onclick src srcset style target xlink:href
"""
HARMLESS = ("lang", "title", "rel")  # on every element
REL = "rel=noopener&#32;noreferrer&#32;nofollow&#32;ugc"
FORMATTED = f"<p><b>bold</b> <a href=https://example.com/ {REL}>link</a></p>"


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


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize(
    "text",
    [
        *PAYLOADS,
        "\" onmouseover=alert(1) x='",
        "' onmouseover=alert(1) x=\"",
        '<a href="https://example.com/ onmouseover=alert(1) ">x</a>',
        "<b title=' onmouseover=alert(1) '>x</b>",
        "<b title='>' lang=''>x</b>",
    ],
)
def test_it_stays_inside_a_quoted_attribute(quote: str, text: str):
    for shown in (sanitize_html(text), markdown(text)):
        assert Active(f"<abbr title={quote}{shown}{quote}>").found == []
        assert '"' not in shown
        assert "'" not in shown


@pytest.mark.parametrize("text", [*PAYLOADS, FORMATTED, "<b title='a\nb' lang=''>x"])
def test_text_that_was_sanitized_stays_as_it_is(text: str):
    assert sanitize_html(sanitize_html(text)) == sanitize_html(text)


def test_what_is_kept_is_not_active():
    attributes = {name for names in ATTRIBUTES.values() for name in names}
    assert (TAGS | attributes).isdisjoint(ACTIVE.split())


def test_formatting_stays():
    assert sanitize_html(FORMATTED) == FORMATTED
    shown = markdown("# Title\n\n*a* ~~b~~\n\n|x|\n|-|\n|1|\n\n<https://example.com>")
    for kept in ("<em>a</em>", "<s>b</s>", "<td>1</td>", "href=https://example.com"):
        assert kept in shown


def test_html_in_markdown_is_shown_as_it_was_written():
    assert "&lt;b&gt;" in markdown("<b>x</b>")


def test_a_link_gives_the_other_site_neither_referrer_nor_rank():
    shown = sanitize_html("<a href=https://example.com/ rel=opener target=_blank>x</a>")
    assert REL in shown
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


@pytest.mark.parametrize(
    "text",
    [
        "<p>" + "".join(f"<b title={n}>" for n in range(1500)) + "<p>x" * 6000,
        "<p>" + "".join(f"<I/lang={n}>" for n in range(1500)) + "<p>x" * 6000,
        "<p>" + "<b><i><u><s><em><code>" * 3 + "<p>x" * 12_000,
    ],
)
def test_html_that_a_parser_repeats_stays_short(text: str):
    assert len(text) <= LONGEST_HTML
    start = time.process_time()
    assert len(sanitize_html(text)) <= LONGEST_RESULT
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "text",
    [
        ("|a" * 490 + "|\n" + "|-" * 490 + "|\n" + "a\n" * 490 + "\n") * 6,
        "[a]: /" + "x" * 9000 + "\n\n" + "[a]" * 3300,
    ],
)
def test_markdown_that_a_parser_repeats_stays_short(text: str):
    assert len(text) <= LONGEST_MARKDOWN
    start = time.process_time()
    assert len(markdown(text)) <= LONGEST_RESULT
    assert time.process_time() - start < 3


def test_a_long_table_stays_one():
    rows = "|a|b|c|\n" * 300
    assert markdown(f"|x|y|z|\n|-|-|-|\n{rows}").count("<td>") == 900


def test_text_that_grows_when_it_is_stored_stays_formatted():
    sent = '<p><a href="https://example.com/">x</a></p>' * 1000
    column = RichText()
    stored = column.process_bind_param(sent, sqlite.dialect())
    assert len(sent) < LONGEST_HTML < len(stored or "")
    assert column.process_result_value(stored, sqlite.dialect()) == stored


def test_text_that_was_stored_unformatted_is_not_escaped_again():
    column = RichText()
    sent = "<b>" * LONGEST_HTML
    stored = column.process_bind_param(sent, sqlite.dialect())
    assert column.process_result_value(stored, sqlite.dialect()) == stored
    assert Markup(stored).unescape() == sent


@pytest.mark.parametrize("piece", ["<b ", "<b x='", "<b/", "<a x='\""])
def test_no_unclosed_tag_takes_long(piece: str):
    start = time.process_time()
    sanitize_html(piece * (LONGEST_HTML // len(piece)))
    assert time.process_time() - start < 3


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
