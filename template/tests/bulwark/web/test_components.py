"""The components of docs/pages.md: what they add to a page, and what they escape."""

import re
from collections.abc import Callable

import pytest
from flask import Flask, render_template_string
from flask_sqlalchemy.pagination import Pagination

from bulwark.web.components import label_cells, mark_current
from tests.conftest import Visitor

HOSTILE = '"><script>alert(1)</script>'
IMPORT = (
    '{% from "bulwark/components.html" import'
    " empty, filters, menu, notice, pagination, table %}"
)
Show = Callable[..., str]


@pytest.fixture
def show(app: Flask) -> Show:
    """Return a function that renders a template as a page at a path does."""

    def show(template: str, path: str = "/", **values: object) -> str:
        with app.test_request_context(path):
            return render_template_string(IMPORT + template, **values)

    return show


class Numbers(Pagination):
    """Pages of the numbers below 100."""

    def _query_items(self) -> list[int]:
        return list(range(100))[self._query_offset :][: self.per_page]

    def _query_count(self) -> int:
        return 100


# --- The current page -----------------------------------------------------------------

LINKS = (
    '<a href="/">Home</a><a href="/invoices/">Invoices</a>'
    '<a class="x" href="/invoices/paid?year=2026">Paid</a><a href="/inv">Inv</a>'
    '<a href="https://example.com/invoices/">Elsewhere</a><a href="#main">Skip</a>'
)


@pytest.mark.parametrize(
    ("path", "href", "value"),
    [
        ("/", "/", "page"),
        ("/invoices/?q=1", "/invoices/", "page"),
        ("/invoices/7", "/invoices/", "true"),
        ("/invoices/paid", "/invoices/paid?year=2026", "page"),
        ("/invoice", None, None),
        ("/other", None, None),
    ],
)
def test_the_link_to_the_current_page_is_marked(
    show: Show, path: str, href: str | None, value: str | None
):
    page = show("{% set x %}" + LINKS + "{% endset %}{{ x | mark_current }}", path)
    marked = re.findall(r'href="([^"]*)" aria-current="(\w+)"', page)
    assert marked == ([(href, value)] if href else [])
    assert re.sub(r' aria-current="\w+"', "", page) == LINKS


def test_a_mark_of_the_team_stays_the_only_one(show: Show):
    own = '<a href="/">Home</a><a href="/news" aria-current="true">News</a>'
    page = show("{% set x %}" + own + "{% endset %}{{ x | mark_current }}")
    assert page == own


def test_helpers_escape_what_is_not_html_yet(app: Flask):
    with app.test_request_context("/"):
        assert "<a" not in mark_current('<a href="/">Home</a>')
        assert "<td" not in label_cells("<tr><td>1</td></tr>", ["Number"])


def test_the_navigation_of_a_page_marks_where_a_user_is(visitor: Visitor, person: str):
    visitor.sign_in(person)
    for path in ("/account", "/change", "/account/activity"):
        page = visitor.get(path).text
        side = page.partition('aria-label="Account"')[2].partition("</nav>")[0]
        assert re.findall(r'href="([^"]+)" aria-current="page"', side) == [path]


# --- Tables ---------------------------------------------------------------------------

TABLE = """
{% call table("Invoices", ["Number", hostile, "Amount"], numbers=["Amount"]) %}
{% for n in [1, 2] %}
<tr class="odd">
<th scope="row">{{ n }}</th><td>{{ hostile }}</td><td class="a">9</td>
</tr>
{% endfor %}
{% endcall %}
"""


def test_each_cell_of_a_table_has_the_header_of_its_column(show: Show):
    page = show(TABLE, hostile=HOSTILE)
    body = page.partition("<tbody>")[2]
    escaped = "&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"
    assert re.findall(r'<t[hd] data-label="([^"]*)"', body) == [
        *("Number", escaped, "Amount"),
        *("Number", escaped, "Amount"),
    ]
    assert page.count(" data-number") == 3  # the header, and a cell of each row
    assert 'data-label="Amount" data-number class="a"' in body
    assert "<script>" not in page
    assert '<th scope="col">Number</th>' in page


# --- Filters and pages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "links"),
    [
        (1, ["2", "10", "Next"]),
        (5, ["Previous", "1", "4", "6", "10", "Next"]),
        (10, ["Previous", "1", "9"]),
    ],
)
def test_a_list_leads_to_its_other_pages(show: Show, number: int, links: list[str]):
    pages = Numbers(page=number, per_page=10)
    page = show("{{ pagination(pages) }}", "/?q=a%26b&page=7", pages=pages)
    found = re.findall(r'<a href="([^"]*)"[^>]*>(.*?)</a>', page)
    named = {re.sub("<.*>", "", text): href for href, text in found}
    assert set(links) <= named.keys()
    assert f'page={number}" aria-current="page"' in page
    assert all(href.startswith("?q=a%26b&amp;page=") for href in named.values())


def test_a_list_of_one_page_has_no_links(show: Show):
    pages = Numbers(page=1, per_page=100)
    assert "<nav" not in show("{{ pagination(pages) }}", pages=pages)


def test_links_of_pages_never_leave_the_page(show: Show):
    query = "/?_external=1&_scheme=javascript&next=//evil.example"
    page = show("{{ pagination(pages) }}", query, pages=Numbers(page=1, per_page=10))
    assert all(href.startswith("?") for href in re.findall('href="([^"]*)"', page))


def test_a_changed_query_keeps_the_others(show: Show):
    template = "{{ query_string(page=2, old=none) }}"
    assert show(template, "/?a=1&a=2&old=3&page=1") == "?a=1&amp;a=2&amp;page=2"


# --- Menus ----------------------------------------------------------------------------


def test_a_menu_opens_without_scripts(show: Show):
    page = show('{% call menu("m1", "More", "of 7") %}<li>Item</li>{% endcall %}')
    assert 'popovertarget="m1"' in page
    assert 'id="m1" popover>' in page
    assert "<script" not in page
    assert 'More<span class="unseen"> of 7</span>' in page


def test_the_pages_of_users_have_their_menu(visitor: Visitor, person: str):
    assert 'id="user-menu"' not in visitor.get("/login").text
    visitor.sign_in(person)
    for path in ("/account", "/change"):
        menu = visitor.get(path).text.partition('id="user-menu"')[2]
        menu = menu.partition("</ul>")[0]
        assert person in menu
        assert 'href="/account"' in menu
        assert 'action="/logout"' in menu
        assert "/admin" not in menu
