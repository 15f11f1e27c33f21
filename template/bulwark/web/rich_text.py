"""Text with formatting that users write, as HTML or Markdown, without anything active.

Only elements for formatting are kept: no scripts, styles, images, forms, ids or
classes. So the text runs nothing, loads nothing, and can't look like a part of the
page. nh3 parses HTML as browsers do, and returns new HTML. The result contains no
quotes, so it also stays inside a quoted attribute.

{{ note.text }}            a column of the type `RichText`
{{ text | rich }}          any other HTML
{{ text | markdown }}      Markdown; add markdown-it-py to your dependencies
"""

import re
from functools import cache
from typing import Any

from flask import Flask
from markupsafe import Markup, escape
from sqlalchemy import Dialect, String, TypeDecorator

TAGS = frozenset(
    """
    a abbr b blockquote br code dd del dl dt em h2 h3 h4 h5 h6 hr i ins kbd li mark ol p
    pre q s samp small strong sub sup table tbody td tfoot th thead tr u ul
    """.split()  # noqa: SIM905  as words are read
)
ATTRIBUTES = {
    "a": {"href", "title"},
    "abbr": {"title"},
    "ol": {"start"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
}
SCHEMES = {"http", "https", "mailto", "tel"}
# Links of users send no referrer, can't control this page, and add no search rank.
REL = "noopener noreferrer nofollow ugc"
# In characters. For some texts, such as unclosed elements, the time to parse grows with
# the square of the length. Longer texts are shown unformatted.
LONGEST_HTML = 50_000
LONGEST_MARKDOWN = 20_000
# Sanitizing closes and repeats elements, and Markdown repeats addresses and cells.
LONGEST_RESULT = 4 * LONGEST_HTML
MOST_CELLS = 10_000  # of a table: each costs as much as a hundred characters
# A parser repeats an open element of these kinds in each paragraph that follows, but at
# most three that are alike. With attributes, they are not.
DECORATED = re.compile(
    r"<(b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)[\s/][^>]*>?",
    re.IGNORECASE,
)
MOST_COPIES = 200_000
# A start tag as nh3 writes it, or a quote outside of tags.
TAG_OR_QUOTE = re.compile(r"""<[^<>"]*(?:"[^"]*"[^<>"]*)*>|["']""")
VALUE = re.compile(r'="([^"]*)"')
# What would end an attribute's value, with or without quotes.
ENDING = str.maketrans({c: f"&#{ord(c)};" for c in "\t\n\f\r \"'<=>`"})


class RichText(TypeDecorator[Markup]):
    """A column of HTML, which is sanitized when it is written and when it is read.

    If a rule becomes stricter, it applies to stored text, too.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text to store."""
        return value if value is None else str(sanitize_html(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> Markup | None:
        """Return the text to show, which templates don't escape."""
        return value if value is None else _sanitized(value, LONGEST_RESULT)


def init_app(app: Flask) -> None:
    """Add the filters, unless the app has its own of the same name."""
    app.jinja_env.filters.setdefault("rich", sanitize_html)
    app.jinja_env.filters.setdefault("markdown", render_markdown)


def sanitize_html(html: str) -> Markup:
    """Return HTML with formatting and links only, which templates don't escape.

    Args:
        html: any text. One of more than 50,000 characters is returned unformatted.
    """
    return _sanitized(html, LONGEST_HTML)


def render_markdown(text: str) -> Markup:
    """Return the HTML of a text in Markdown (CommonMark, tables, ~~struck~~).

    HTML in the text is shown as it was written.

    Args:
        text: any text. One of more than 20,000 characters is returned unformatted.
    """
    lines = text.splitlines()
    cells = max((line.count("|") for line in lines), default=0) * len(lines)
    if len(text) > LONGEST_MARKDOWN or cells > MOST_CELLS:
        return escape(str(text))
    return _limited(_markdown().render(text), text)


def _sanitized(html: str, longest: int) -> Markup:
    """Return HTML sanitized, or unformatted if it is longer."""
    if len(html) > longest and "<" in html:  # without elements, no text takes long
        return escape(str(html))
    if len(DECORATED.findall(html)) * html.count("<") > MOST_COPIES:
        html = DECORATED.sub(r"<\1>", html)
    return _limited(html, html)


def _limited(html: str, source: str) -> Markup:
    """Return HTML sanitized, or its source if that is too long."""
    if len(html) <= LONGEST_RESULT or "<" not in html:
        clean = _clean(html)
        if len(clean) <= LONGEST_RESULT or "<" not in clean:
            return Markup(clean)  # noqa: S704  it is clean
    return escape(str(source))


def _clean(html: str) -> str:
    import nh3  # noqa: PLC0415  for services with rich text only

    clean = nh3.clean(
        html,
        tags=set(TAGS),
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel=REL,
    )
    return TAG_OR_QUOTE.sub(_without_quotes, clean)


def _without_quotes(found: re.Match[str]) -> str:
    """Return a tag with values that need no quotes, or an encoded quote."""
    if len(found[0]) == 1:
        return found[0].translate(ENDING)
    return VALUE.sub(
        lambda value: f"={value[1].translate(ENDING)}" if value[1] else "", found[0]
    )


@cache
def _markdown() -> Any:
    try:
        from markdown_it import MarkdownIt  # noqa: PLC0415  is the team's to install
    except ModuleNotFoundError as error:
        raise RuntimeError(
            'the filter `markdown` needs "markdown-it-py>=3" in your dependencies'
        ) from error
    parser = MarkdownIt("commonmark", {"html": False})
    return parser.enable(["table", "strikethrough"])
