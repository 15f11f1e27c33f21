"""The color of the brand: readable, and the same in emails as on pages."""

from pathlib import Path

import pytest
from flask import Flask, render_template

from bulwark.web import brand
from tests.conftest import ROOT


def test_text_on_the_color_of_the_brand_is_readable(app: Flask):
    """WCAG 2.2, 1.4.3. The message says what to do."""
    found = brand.problem(brand.style_of(app))
    assert found is None, found


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ("", ()),
        (":root { --brand: #6d28d9; }", ()),
        (":root{--brand:#07A}", ()),
        (":root { --brand: #767676; }", ()),
        (":root { --brand: #777777; }", ("#777777", "4.48:1", "such as #757575")),
        (":root { --brand: #ff6600; }", ("2.94:1", "such as #c95000")),
        (":root { --brand: #fff }", ("1.00:1", "such as #757575")),
        (":root { --brand: rebeccapurple; }", ("rebeccapurple", "six hexadecimal")),
        (":root { --brand: #6d28d9; } .x { --brand: #fff; }", ("#fff",)),
        (":root { /* --brand: #fff; */ --brand: #6d28d9; }", ()),
        (":root { --brand-dark: #fff; --our--brand: #fff; }", ()),
    ],
)
def test_a_color_that_cannot_be_read_is_refused(style: str, words: tuple[str, ...]):
    found = brand.problem(style) or ""
    assert bool(found) is bool(words)
    assert [word for word in words if word not in found] == []


@pytest.mark.parametrize(
    ("style", "color"),
    [
        (":root { --brand: #6d28d9; }", "#6d28d9"),
        (":root { --brand: red; }", brand.DEFAULT),
        (None, brand.DEFAULT),
    ],
)
def test_emails_have_the_color(
    app: Flask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    style: str | None,
    color: str,
):
    if style is not None:
        (tmp_path / "app.css").write_text(style)
    monkeypatch.setattr(app, "static_folder", str(tmp_path))
    with app.app_context():
        email = render_template(
            "bulwark/mail.html", subject="Hi", paragraphs=["https://example.com/x"]
        )
    assert f"background: {color};" in email


def test_pages_begin_with_the_same_color():
    style = (ROOT / "bulwark/static/bulwark.css").read_text(encoding="utf-8")
    assert brand.declared(style) == brand.DEFAULT
