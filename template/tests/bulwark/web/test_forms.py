"""A team's form: what `render_form` makes of its fields and errors."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Blueprint, Flask, render_template_string
from flask.typing import ResponseReturnValue
from wtforms import (
    DecimalField,
    EmailField,
    FieldList,
    FileField,
    FormField,
    HiddenField,
    IntegerField,
    PasswordField,
    RadioField,
    StringField,
    SubmitField,
    TelField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, NumberRange

from bulwark import Form, public
from tests.bulwark.team_app import running
from tests.conftest import Visitor

PAGE = """{% from "bulwark/forms.html" import render_form %}
{% call render_form(form, button="Order", cancel="/back") %}<p>Please order.</p>
{% endcall %}"""


class Part(Form):
    """Fields within a form, which has the CSRF token."""

    class Meta:
        csrf = False


class Line(Part):
    """A part of an order."""

    line_id = HiddenField()
    amount = IntegerField("Amount", [NumberRange(min=1, message="Order at least 1.")])


class Order(Form):
    """Every kind of field that needs care."""

    name = StringField("Name", [InputRequired("Enter a name."), Length(max=20)])
    email = EmailField("Email", description="For the receipt.")
    phone = TelField("Phone", render_kw={"autocomplete": "off"})
    price = DecimalField("Price")
    note = TextAreaField("Note")
    size = RadioField("Size", choices=[("s", "Small"), ("l", "Large")])
    lines = FieldList(FormField(Line, "Line"), "Lines", min_entries=2)


class Several(Form):
    """Two buttons, a password, and a file within a part."""

    password = PasswordField("Password")
    files = FormField(type("Files", (Part,), {"file": FileField("File")}), "Files")
    save = SubmitField("Save")
    delete = SubmitField("Delete it")


blueprint = Blueprint("orders", __name__)


@blueprint.route("/orders", methods=["GET", "POST"])
@public
def order() -> ResponseReturnValue:
    form = Order()
    if form.validate_on_submit():
        return "ordered"
    return render_template_string(PAGE, form=form)


@blueprint.get("/several")
@public
def several() -> ResponseReturnValue:
    return render_template_string(PAGE, form=Several())


@pytest.fixture(scope="module")
def orders(
    whole_app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    folder = tmp_path_factory.mktemp("orders")
    with running(whole_app, folder, [blueprint]) as app:
        yield app


class Tags(HTMLParser):
    """The attributes of each tag that has a name or an id, by that."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, dict[str, Any]] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found[values.get("name") or values.get("id") or tag] = values
        self.ids += filter(None, [values.get("id")])
        if (href := values.get("href") or "").startswith("#"):
            self.links.append(href[1:])


GOOD = {"name": "Zoë", "price": "1.50", "size": "s"} | {
    f"lines-{number}-amount": "2" for number in (0, 1)
}


@pytest.fixture
def visitor(orders: Flask, mailbox) -> Visitor:
    return Visitor(orders, mailbox)


def test_a_form_is_rendered_with_what_its_fields_need(visitor: Visitor):
    page = visitor.get("/orders").text
    tags = Tags(page).found
    assert "enctype" not in tags["form"]
    assert "action" not in tags["form"]
    assert tags["csrf_token"]["type"] == "hidden"
    assert tags["email"]["autocomplete"] == "email"
    assert tags["email"]["aria-describedby"] == "email-note"
    assert tags["phone"]["autocomplete"] == "off"  # as the team declared it
    assert tags["price"]["inputmode"] == "decimal"
    assert tags["lines-1-amount"]["inputmode"] == "numeric"
    assert tags["lines-1-line_id"]["type"] == "hidden"
    assert tags["name"]["maxlength"] == "20"
    assert "required" in tags["name"]
    assert page.index("Please order.") < page.index("Name") < page.index(">Order<")
    assert '<a href="/back">Cancel</a>' in page
    assert "password.js" not in page


def test_a_good_form_is_accepted(visitor: Visitor):
    assert visitor.submit("/orders", GOOD).text == "ordered"


def test_each_error_is_in_the_summary_and_at_its_field(visitor: Visitor):
    wrong = GOOD | {"name": "", "price": "much", "size": "x", "lines-1-amount": "0"}
    page = visitor.submit("/orders", wrong | {"note": "</textarea><b>"}).text
    tags = Tags(page)
    assert tags.links == ["name", "price", "size-0", "lines-0"]
    assert set(tags.links) <= set(tags.ids)
    assert 'class="problems" role="alert" tabindex="-1" autofocus' in page
    errors = dict(re.findall(r'<small class="error" id="([^"]+)">([^<]+)<', page))
    assert errors["name-note"] == "Enter a name."
    assert errors["lines-1-amount-note"] == "Order at least 1."
    assert errors.keys() == {
        *("name-note", "price-note", "size-note", "lines-1-amount-note"),
    }
    for name in ("name", "price", "lines-1-amount"):
        assert tags.found[name]["aria-invalid"] == "true"
        assert tags.found[name]["aria-describedby"] == f"{name}-note"
    assert tags.found["price"]["value"] == "much"  # what the user entered stays
    assert "&lt;/textarea&gt;&lt;b&gt;" in page


def test_a_form_without_a_token_is_refused(visitor: Visitor):
    referrer = {"Referer": "https://localhost/orders"}
    answer = visitor.client.post("/orders", data=GOOD, headers=referrer)
    assert answer.status_code == 400


def test_several_buttons_are_told_apart_and_a_file_within_a_part_is_sent(
    visitor: Visitor,
):
    page = visitor.get("/several").text
    tags = Tags(page).found
    assert tags["form"]["enctype"] == "multipart/form-data"
    assert tags["save"]["type"] == tags["delete"]["type"] == "submit"
    assert tags["delete"]["class"] == "plain"
    assert ">Order<" not in page
    assert "password.js" in page
