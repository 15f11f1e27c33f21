"""The fields of a new model: what each kind becomes in the code."""

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bulwark.ops.new.names import LONGEST, NAME, RefusedError

FIELD = re.compile(r"(?P<name>[^:?]+)(:(?P<kind>[^:?]+))?(?P<optional>\?)?")
ALWAYS = ("id", "created_at", "user_id")
# Attributes of SQLAlchemy's models, of WTForms' forms and of pydantic's models.
WORDS = (
    "metadata registry query type_annotation_map csrf_token data errors form_errors"
    " hidden_tag is_submitted meta populate_obj process submit validate"
    " validate_on_submit construct copy dict from_orm json parse_file parse_obj"
    " parse_raw schema schema_json update_forward_refs"
    " bool date datetime int str"  # the types of fields
)
USED = frozenset(WORDS.split())


@dataclass(frozen=True)
class Kind:
    """A kind of field.

    Args:
        python: the type in Python.
        column: the SQLAlchemy type, or "" if the Python type is enough.
        form_field: the class in WTForms.
        checks: the validators in WTForms, but for whether a value is needed.
        limits: the limits in pydantic.
        example: a value, as a form sends it.
        json: the same value in JSON, as Python writes it.
    """

    python: str
    column: str
    form_field: str
    checks: str
    limits: str
    example: str
    json: str


WHOLE = "-(2**31)", "2**31 - 1"  # what an INTEGER column of PostgreSQL stores
KINDS: dict[str, Kind] = {
    "string": Kind(
        "str",
        "String(200)",
        "StringField",
        "Length(max=200)",
        "min_length=1, max_length=200",
        '"Example"',
        '"Example"',
    ),
    "text": Kind(
        "str",
        "Text",
        "TextAreaField",
        "Length(max=10_000)",
        "min_length=1, max_length=10_000",
        '"Some text"',
        '"Some text"',
    ),
    "integer": Kind(
        "int",
        "",
        "IntegerField",
        f"NumberRange({', '.join(WHOLE)})",
        f"ge={WHOLE[0]}, le={WHOLE[1]}",
        '"5"',
        "5",
    ),
    "boolean": Kind("bool", "", "BooleanField", "", "", '"y"', "True"),
    "date": Kind("date", "", "DateField", "", "", '"2026-11-30"', '"2026-11-30"'),
}


@dataclass(frozen=True)
class Field:
    """A field of a model."""

    name: str
    kind_name: str
    is_optional: bool

    @property
    def kind(self) -> Kind:
        """What its kind becomes in the code."""
        return KINDS[self.kind_name]

    @property
    def is_text(self) -> bool:
        """Whether it is text, whose lack a form sends as an empty string."""
        return self.kind.python == "str"

    @property
    def is_required(self) -> bool:
        """Whether a form without it is refused; an empty checkbox is a value."""
        return not self.is_optional and self.kind_name != "boolean"

    @property
    def label(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ").capitalize()

    @property
    def annotation(self) -> str:
        """The type in Python."""
        return f"{self.kind.python} | None" if self.is_optional else self.kind.python


def parse_all(texts: Sequence[str]) -> list[Field]:
    """Return the fields of a model; without any, it has a name.

    Raises:
        RefusedError: a field has no usable name or kind, or two have the same name.
    """
    fields = [_parse(text) for text in texts or ("name:string",)]
    names = [field.name for field in fields]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RefusedError(f"Two fields are called {twice}.")
    return fields


def _parse(text: str) -> Field:
    found = FIELD.fullmatch(text)
    kinds = ", ".join(KINDS)
    if not found:
        raise RefusedError(
            f"{text!r} is no field. Write name:kind, or name:kind? if it may be empty."
            f" Kinds are {kinds}."
        )
    name, kind = found["name"], found["kind"] or "string"
    if not NAME.fullmatch(name) or len(name) > LONGEST or keyword.iskeyword(name):
        raise RefusedError(
            f"{name!r} can't be the name of a field. Use lowercase ASCII letters,"
            f" digits and underscores, {LONGEST} at most, and no keyword of Python."
        )
    if name in ALWAYS:
        raise RefusedError(f"Each model has the field {name} already. Leave it out.")
    if name in USED or name.startswith(("model_", "validate_")):
        raise RefusedError(
            f"{name} has another meaning in a model or form. Choose another name."
        )
    if kind not in KINDS:
        raise RefusedError(f"{kind!r} is no kind of field. Kinds are {kinds}.")
    if kind == "boolean" and found["optional"]:
        raise RefusedError(
            f"{text} can't be empty: a checkbox is ticked or not. Remove the ?."
        )
    return Field(name, kind, bool(found["optional"]))
