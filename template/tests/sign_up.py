"""What a new account of this service requires, so that tests can create one.

Your fields get values that fit their types. If a validator of yours rejects one, or you
want others, write a function `values(email)` in `tests/app/sign_up.py` which returns
them by the names of the fields.
"""

import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import wtforms
from flask import Flask
from werkzeug.datastructures import MultiDict

from bulwark.identity import profile, sign_up_options
from bulwark.identity.models import BaseUser

OWN = "tests.app.sign_up"
# The first type that fits a field counts.
SAMPLES: tuple[tuple[type, str], ...] = (
    (wtforms.BooleanField, "y"),
    (wtforms.DateField, "1990-05-17"),
    (wtforms.TimeField, "08:30"),
    (wtforms.DateTimeField, "1990-05-17 08:30:00"),  # the base of the two above
    (wtforms.EmailField, "contact@example.org"),
    (wtforms.URLField, "https://example.org"),
    (wtforms.TelField, "+41446681800"),
    (wtforms.Field, "Zoe"),
)
NUMBERS = (wtforms.IntegerField, wtforms.DecimalField, wtforms.FloatField)


def choices_of(app: Flask) -> sign_up_options.SignUp:
    """Return what `sign_up` is in `app/__init__.py`."""
    choices: sign_up_options.SignUp = app.extensions["sign_up"]
    return choices


def own_fields(app: Flask, email: str) -> dict[str, str]:
    """Return values of your fields, as a browser sends them."""
    kind = choices_of(app).form
    if kind is None:
        return {}
    with app.test_request_context():
        form = kind(formdata=None)
        columns = dict(profile.columns_of(kind))
        found = {
            name: _sample(form[name], column, email) for name, column in columns.items()
        }
    if find_spec(OWN):
        found |= import_module(OWN).values(email)
    return found


def required(app: Flask, email: str) -> dict[str, str]:
    """Return what the form of a new account requires beside a password."""
    terms = choices_of(app).terms
    accepted = {"accept_terms": terms.version} if terms else {}
    return {**own_fields(app, email), **accepted}


def fill(app: Flask, user: BaseUser) -> None:
    """Give a user what they have after they created an account themselves."""
    choices = choices_of(app)
    if choices.terms:
        user.accepted_terms_version = choices.terms.version
        user.accepted_terms_at = user.confirmed_at
    if choices.form is None:
        return
    values = own_fields(app, user.email)
    with app.test_request_context():
        form = choices.form(formdata=MultiDict(values), meta={"csrf": False})
        # Without the queries for values that are taken: these are new.
        for field in form:
            field.validate(form)
        assert not form.errors, explain(form.errors)
        profile.fill(user, form)


def explain(errors: Mapping[Any, Any]) -> str:
    """Return what to do if the values don't fit."""
    return (
        f"tests can't create an account, as your form rejects its values: {errors}."
        " Write a function `values(email)` in tests/app/sign_up.py that returns valid"
        " ones, by the names of the fields."
    )


def _sample(field: Any, column: Any, email: str) -> str:
    """Return a value that fits the type of a field, different for each address."""
    if isinstance(field, wtforms.SelectField):
        values = [str(value) for value, *_ in field.iter_choices()]
        return next((v for v in values if v not in ("", "None")), "")
    bounds = [v for v in field.validators if hasattr(v, "min") or hasattr(v, "max")]
    least = max((v.min for v in bounds if v.min not in (None, -1)), default=1)
    if isinstance(field, NUMBERS):
        return str(least)
    sample = next(s for kind, s in SAMPLES if isinstance(field, kind))
    if sample != "Zoe":
        return sample
    if column.unique:
        # Letters only: user names often allow nothing else.
        letters = email.lower().translate(str.maketrans("0123456789", "abcdefghij"))
        sample = re.sub("[^a-z]", "", letters)
    most = min(
        [v.max for v in bounds if v.max not in (None, -1)]
        + [n for n in [getattr(column.type, "length", None)] if n]
        + [200]
    )
    return (sample * least)[: max(least, len(sample))][:most]
