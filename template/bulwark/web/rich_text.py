"""Text with formatting that users write, as HTML or Markdown, without anything active.

Only elements for formatting are kept: no scripts, styles, images, forms, ids or
classes. So the text runs nothing, loads nothing, and can't look like a part of the
page. nh3 parses HTML as browsers do, and returns new HTML.

{{ note.text }}            a column of the type `RichText`
{{ text | rich }}          any other HTML
{{ text | markdown }}      Markdown; add markdown-it-py to your dependencies
"""

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
        return value if value is None else sanitize_html(value)


def init_app(app: Flask) -> None:
    """Add the filters, unless the app has its own of the same name."""
    app.jinja_env.filters.setdefault("rich", sanitize_html)
    app.jinja_env.filters.setdefault("markdown", render_markdown)


def sanitize_html(html: str) -> Markup:
    """Return HTML with formatting and links only, which templates don't escape.

    Args:
        html: any text. One of more than 50,000 characters is returned unformatted.
    """
    if len(html) > LONGEST_HTML:
        return escape(str(html))
    return Markup(_clean(html))  # noqa: S704  it is clean


def render_markdown(text: str) -> Markup:
    """Return the HTML of a text in Markdown (CommonMark, tables, ~~struck~~).

    HTML in the text is shown as it was written.

    Args:
        text: any text. One of more than 20,000 characters is returned unformatted.
    """
    if len(text) > LONGEST_MARKDOWN:
        return escape(str(text))
    return Markup(_clean(_markdown().render(text)))  # noqa: S704  it is clean


def _clean(html: str) -> str:
    import nh3  # noqa: PLC0415  for services with rich text only

    return nh3.clean(
        html,
        tags=set(TAGS),
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel=REL,
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
