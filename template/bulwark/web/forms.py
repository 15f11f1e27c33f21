"""The base class of a team's forms, and what the macros of forms.html ask of a form."""

from typing import Any

from flask import Flask
from flask_wtf import FlaskForm

# Attributes for keyboards and password managers, where a field declares none.
ATTRIBUTES = {
    "DecimalField": {"inputmode": "decimal"},
    "EmailField": {"autocomplete": "email"},
    "IntegerField": {"inputmode": "numeric"},
    "TelField": {"autocomplete": "tel"},
}


class Form(FlaskForm):  # type: ignore[misc]
    """A form with CSRF protection; `render_form` in forms.html renders it.

    Declare fields of WTForms. `validate_on_submit()` returns whether the user submitted
    the form and everything is valid; `data` of a field is then its value.
    """


def init_app(app: Flask) -> None:
    """Add what the macros ask."""
    app.add_template_filter(has_files)
    app.add_template_filter(attributes, "field_attributes")


def has_files(form: Any) -> bool:
    """Return whether a form, or a form within it, has a field for files."""
    return any(_is_for_files(field) for field in form)


def _is_for_files(field: Any) -> bool:
    if getattr(field.widget, "input_type", None) == "file":
        return True
    # A FormField contains the fields of a form, and a FieldList contains its entries.
    return field.type in ("FieldList", "FormField") and has_files(field)


def attributes(field: Any) -> dict[str, str]:
    """Return attributes that suit the type of a field, unless it declares them."""
    declared = field.render_kw or {}
    suiting = ATTRIBUTES.get(field.type, {})
    return {name: value for name, value in suiting.items() if name not in declared}
