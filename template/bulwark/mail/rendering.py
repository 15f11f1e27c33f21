"""Both parts of an email from one template: HTML with inline styles, and plain text.

Email clients ignore style sheets, or parts of them. So each element gets its style
here. What an email must not contain is refused: it would be blocked, or would show the
sender who reads it, and when.
"""

import re
from html import unescape
from html.parser import HTMLParser

STYLES = {
    "h1": "margin: 0 0 .8em; font-size: 22px; line-height: 1.3",
    "h2": "margin: 1.6em 0 .6em; font-size: 18px; line-height: 1.3",
    "p": "margin: 0 0 1em; overflow-wrap: anywhere",
    "ul": "margin: 0 0 1em; padding-left: 1.4em",
    "ol": "margin: 0 0 1em; padding-left: 1.4em",
    "li": "margin: 0 0 .3em; overflow-wrap: anywhere",
    "table": "width: 100%; margin: 0 0 1em; border-collapse: collapse",
    "th": "padding: .4em .6em .4em 0; border-bottom: 1px solid #8891a4;"
    " text-align: left; vertical-align: top",
    "td": "padding: .4em .6em .4em 0; border-bottom: 1px solid #8891a4;"
    " vertical-align: top",
    "pre": "margin: 0 0 1em; font: 14px/1.5 ui-monospace, monospace;"
    " white-space: pre-wrap; overflow-wrap: anywhere",
    "blockquote": "margin: 0 0 1em; padding-left: 1em; border-left: 3px solid #8891a4",
}
BUTTON = (
    "display: inline-block; padding: .6em 1.2em; border-radius: .3em;"
    " background: #0172ad; color: #fff; text-decoration: none"
)
ELEMENTS = frozenset(
    """
    html head meta title body header main footer div span p h1 h2 h3 ul ol li br hr a
    strong b em i u s small sub sup code pre blockquote table caption thead tbody tfoot
    tr th td img
    """.split()  # noqa: SIM905  as words are read
)
ATTRIBUTES = frozenset(
    """
    alt charset class colspan content height href lang dir name role rowspan scope src
    style title width data-text
    """.split()  # noqa: SIM905
)
BLOCKS = frozenset(
    """
    body main footer div p h1 h2 h3 ul ol li blockquote pre table caption tr
    """.split()  # noqa: SIM905
)
ROWS = ("li", "tr")  # no blank line between two of them
HIDDEN = ("head", "header")
LINK = re.compile(r"(https?://|mailto:|tel:)[^\s<>]+", re.IGNORECASE)
IMAGE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=]+")


class EmailContentError(ValueError):
    """The template of an email contains what an email must not contain."""


class _Reader(HTMLParser):
    """Reads a page, and writes both parts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.html: list[str] = []
        self._blocks: list[tuple[str, str]] = []
        self._text = ""
        self._kind = ""
        self._hidden = ""
        self._link: tuple[str, bool, int] | None = None
        self._is_pre = False

    def handle_decl(self, decl: str) -> None:
        self.html.append(f"<!{decl}>")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        _check(tag, given)
        raw = self.get_starttag_text() or ""
        is_button = tag == "a" and "button" in given.get("class", "").split()
        style = BUTTON if is_button else STYLES.get(tag)
        if style and "style" not in given:
            raw = f'{raw[: len(tag) + 1]} style="{style}"{raw[len(tag) + 1 :]}'
        self.html.append(raw)
        if self._hidden:
            return
        if tag in HIDDEN:
            self._hidden = tag
        elif tag in BLOCKS:
            self._end_block(tag)
            self._is_pre = tag == "pre"
        elif tag == "br":
            self._text += "\n"
        elif tag == "hr":
            self._end_block("hr")
            self._blocks.append(("hr", "---"))
        elif tag in ("td", "th") and self._text.strip():
            self._text = f"{self._text.rstrip()} | "
        elif tag == "img":
            self._text += given.get("alt", "")
        elif tag == "a":
            self._link = given.get("href", ""), is_button, len(self._text)

    def handle_endtag(self, tag: str) -> None:
        self.html.append(f"</{tag}>")
        if self._hidden:
            self._hidden = "" if tag == self._hidden else self._hidden
        elif tag in BLOCKS:
            self._end_block("")
            self._is_pre = False
        elif tag == "a" and self._link:
            self._end_link(*self._link)
            self._link = None

    def handle_data(self, data: str) -> None:
        self.html.append(data)
        if not self._hidden:
            self._text += data if self._is_pre else re.sub(r"[ \t\r\n\f]+", " ", data)

    def handle_entityref(self, name: str) -> None:
        self._add_character(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._add_character(f"&#{name};")

    def text(self) -> str:
        """Return the plain text."""
        self._end_block("")
        parts: list[str] = []
        last = ""
        for kind, block in self._blocks:
            together = kind == last and kind in ROWS
            parts += [("\n" if together else "\n\n") if parts else "", block]
            last = kind
        return "".join(parts) + "\n"

    def _add_character(self, reference: str) -> None:
        self.html.append(reference)
        if not self._hidden:
            self._text += unescape(reference)

    def _end_link(self, href: str, is_button: bool, start: int) -> None:
        label = self._text[start:].strip()
        if is_button:
            self._text = f"{self._text[:start]}{label}:"
            self._end_block("")
            self._blocks.append(("", href))
        elif href.removeprefix("mailto:") != label:
            self._text = f"{self._text.rstrip()} ({href})"

    def _end_block(self, next_kind: str) -> None:
        text = self._text
        if self._is_pre:
            text = text.strip("\n")
        else:
            text = "\n".join(line.strip() for line in text.strip().split("\n"))
        if text:
            bullet = "- " if self._kind == "li" else ""
            self._blocks.append((self._kind, bullet + text))
        self._text, self._kind = "", next_kind


def parts(page: str) -> tuple[str, str]:
    """Return the plain text of a page, and the page with inline styles.

    Raises:
        EmailContentError: it has an element that emails can't have, content from
            elsewhere, or a link that isn't a whole address.
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.text(), "".join(reader.html)


def _check(tag: str, given: dict[str, str]) -> None:
    if tag not in ELEMENTS:
        raise EmailContentError(f"an email can't contain <{tag}>: clients remove it")
    if unknown := given.keys() - ATTRIBUTES:
        raise EmailContentError(
            f"an email can't have the attribute {min(unknown)} of <{tag}>"
        )
    if tag == "a" and not LINK.fullmatch(given.get("href", "")):
        raise EmailContentError(
            f"a link in an email needs a whole address that begins with https://, not"
            f" {given.get('href', '')[:80]!r}: use {{{{ link('endpoint') }}}}"
        )
    if tag == "img" and not IMAGE.fullmatch(given.get("src", "")):
        raise EmailContentError(
            "an email loads no images: they would show who reads it, and when. Use"
            " data:image/png;base64,… or similar"
        )
    if "url(" in unescape(given.get("style", "")).lower():
        raise EmailContentError("the style of an email can't load anything")
