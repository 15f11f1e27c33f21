"""The fields of the team's own that users fill in when they create an account."""

from collections.abc import Iterator
from typing import Any

from flask_security import forms as stock
from sqlalchemy import Column, String, inspect, select
from wtforms import SelectField

from bulwark.database import db
from bulwark.identity import users
from bulwark.identity.form_data import submitted
from bulwark.identity.models import BaseUser

# The value of a required column until an invited user fills in the form.
BLANKS: dict[type, Any] = {str: "", int: 0, float: 0.0, bool: False}
TAKEN = "This is already taken."


class ProfileForm(stock.Form):
    """The base class of your form: each of its fields is a column of your `User`.

    The form checks two properties of the columns itself: the length of a `String`, and
    that the value of a unique column is not taken.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._user: BaseUser | None = options.get("obj")

    def validate(self, **options: Any) -> bool:
        """Apply the validators of the fields, then check the columns."""
        valid = bool(super().validate(**options))
        for name, column in columns_of(type(self)):
            field = self[name]
            problem = None if field.errors else self._problem(column, field.data)
            if problem:
                field.errors = [problem]
                valid = False
        return valid

    def _problem(self, column: Column[Any], value: object) -> str | None:
        """Return why a column can't store a value."""
        length = column.type.length if isinstance(column.type, String) else None
        if length and isinstance(value, str) and len(value) > length:
            return f"Use {length} characters at most; this has {len(value)}."
        if not column.unique or value in (None, ""):
            return None
        model = users.model()
        query = select(model.id).where(column == value)
        if self._user is not None:
            query = query.where(model.id != self._user.id)
        return TAKEN if db.session.scalar(query.limit(1)) is not None else None


def names_of(form: type[stock.Form]) -> list[str]:
    """Return the names of the fields of a form class, in their order."""
    found = {name: getattr(form, name) for name in dir(form) if name[0] != "_"}
    fields = {n: f for n, f in found.items() if hasattr(f, "_formfield")}
    return sorted(fields, key=lambda name: fields[name].creation_counter)


def columns_of(form: type[stock.Form]) -> Iterator[tuple[str, Column[Any]]]:
    """Yield the team's fields of a form class, with their columns of the user."""
    columns = inspect(users.model()).columns
    for name in names_of(form):
        if name in columns and not hasattr(BaseUser, name):
            yield name, columns[name]


def edit(form: type[ProfileForm], user: BaseUser) -> ProfileForm:
    """Return a form with the values of a user, or those that were submitted."""
    return form(formdata=submitted(), obj=user)


def fill(user: BaseUser, form: stock.Form) -> list[str]:
    """Store the values of a valid form; return the names of those that changed."""
    changed = []
    for name, column in columns_of(type(form)):
        value = form[name].data
        if value == "" and column.nullable:
            value = None
        if getattr(user, name) != value:
            setattr(user, name, value)
            changed.append(name)
    return changed


def fill_blanks(form: type[ProfileForm] | None, user: BaseUser) -> None:
    """Store a blank in each required column, until the user fills in the form."""
    for name, column in columns_of(form) if form else ():
        if is_required(column):
            setattr(user, name, blank_of(column))


def is_required(column: Column[Any]) -> bool:
    """Return whether a new row needs a value for a column."""
    return not (column.nullable or column.default or column.server_default)


def blank_of(column: Column[Any]) -> Any:
    """Return the blank of a column; None if its type has none."""
    try:
        return BLANKS.get(column.type.python_type)
    except NotImplementedError:
        return None


def to_dict(form: type[ProfileForm] | None, user: BaseUser) -> dict[str, Any]:
    """Return the values of a user for JSON."""
    names = [name for name, _ in columns_of(form)] if form else []
    found = {name: getattr(user, name) for name in names}
    plain = (str, int, float, bool, type(None))
    return {
        name: value if isinstance(value, plain) else str(value)
        for name, value in found.items()
    }


def rows(form: type[ProfileForm] | None, user: BaseUser) -> list[tuple[str, str]]:
    """Return the labels and the values of a user for display."""
    if form is None:
        return []
    shown = form(formdata=None, obj=user)
    fields = (shown[name] for name, _ in columns_of(form))
    return [(field.label.text, _display(field)) for field in fields]


def _display(field: Any) -> str:
    if isinstance(field, SelectField):
        for _, label, selected, *_ in field.iter_choices():
            if selected:
                return str(label)
    if isinstance(field.data, bool):
        return "Yes" if field.data else "No"
    return "-" if field.data in (None, "") else str(field.data)
