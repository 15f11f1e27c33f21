"""Template helpers of the components: current links, labelled cells, query strings."""

import re
from collections.abc import Sequence
from html import unescape
from urllib.parse import urlencode

from flask import Flask, request
from markupsafe import Markup, escape

LINK = re.compile(r'<a\b[^>]*?\shref="([^"]*)"')
ROW_OR_CELL = re.compile(r"<(tr|td|th)\b", re.IGNORECASE)


def init_app(app: Flask) -> None:
    """Add the helpers to the templates."""
    app.add_template_filter(mark_current)
    app.add_template_filter(label_cells)
    app.add_template_global(query_string)


def mark_current(links: str) -> str:
    """Add `aria-current` to the link that leads to the current page.

    If no link does, the one to the nearest page above it is marked: at /invoices/7, the
    link to /invoices/. Links that are already marked stay as they are.

    Args:
        links: the HTML of a navigation.
    """
    links = escape(links)  # which leaves HTML as it is
    if "aria-current" in links:
        return links
    path = request.script_root + request.path
    above = [link for link in LINK.finditer(links) if _leads_to(path, link[1])]
    if not above:
        return links
    best = max(above, key=lambda link: len(_path_of(link[1])))
    value = "page" if _path_of(best[1]).rstrip("/") == path.rstrip("/") else "true"
    return Markup(  # noqa: S704  nothing is added to the HTML but this attribute
        f'{links[: best.end()]} aria-current="{value}"{links[best.end() :]}'
    )


def _path_of(href: str) -> str:
    return re.split(r"[?#]", unescape(href))[0]


def _leads_to(path: str, href: str) -> bool:
    """Return whether a link leads to a path, or to a page above it."""
    target = _path_of(href)
    home = request.script_root + "/"
    if target in (path, home):
        return target == path
    return bool(target) and f"{path}/".startswith(f"{target.rstrip('/')}/")


def label_cells(rows: str, columns: Sequence[str], numbers: Sequence[str] = ()) -> str:
    """Add the header of its column to each cell, which a phone shows beside it.

    Args:
        rows: the HTML of the rows. Each has a cell for each column.
        columns: the headers.
        numbers: those headers whose columns contain numbers.
    """
    column = 0

    def label(found: re.Match[str]) -> str:
        nonlocal column
        if found[1].lower() == "tr":
            column = 0
            return found[0]
        header = columns[column] if column < len(columns) else ""
        column += 1
        number = " data-number" if header in numbers else ""
        return f'{found[0]} data-label="{escape(header)}"{number}'

    # `escape` leaves HTML as it is.
    return Markup(ROW_OR_CELL.sub(label, escape(rows)))  # noqa: S704


def query_string(**changes: object) -> str:
    """Return a link to the current page with another query: `?page=2&q=ada`.

    Parameters that `changes` does not name stay; None removes one.
    """
    kept = [(k, v) for k, v in request.args.items(multi=True) if k not in changes]
    changed = [(name, str(v)) for name, v in changes.items() if v is not None]
    return f"?{urlencode([*kept, *changed])}"
