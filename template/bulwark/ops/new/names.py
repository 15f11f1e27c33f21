"""The name of a new model, in each form in which the code uses it."""

import builtins
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask

from bulwark.database import Model, db

LONGEST = 26  # so that every written line fits
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Names that the written code uses for something else.
WORDS = (
    "Annotated Api BaseModel Blueprint BooleanField ConfigDict DataRequired Date"
    " DateField Field FlaskForm ForeignKey InputRequired IntegerField Length Mapped"
    " Model NumberRange Optional Page ResponseReturnValue Select String StringField"
    " SubmitField Text TextAreaField UTCDateTime User"
    " add api blueprint body check_match current_user date datetime db delete edit"
    " field flash form found index mapped_column models newest page paginate path"
    " permission query redirect render_template replace request select show signed_in"
    " title url_for utcnow value"
)
USED = frozenset(WORDS.split())


class RefusedError(Exception):
    """Nothing was written; the message explains why."""


@dataclass(frozen=True)
class Name:
    """A name such as `order_item`, and its plural."""

    singular: str
    plural: str

    @property
    def in_capitals(self) -> str:
        """The name of the class: OrderItem."""
        return "".join(word.capitalize() for word in self.singular.split("_"))

    @property
    def word(self) -> str:
        """The name in a sentence: order item."""
        return self.singular.replace("_", " ")

    @property
    def words(self) -> str:
        """The plural in a sentence: order items."""
        return self.plural.replace("_", " ")

    @property
    def with_article(self) -> str:
        """The name with its article: an order item."""
        return f"{'an' if self.word[0] in 'aeio' else 'a'} {self.word}"

    @property
    def path(self) -> str:
        """The name in URLs: order-items."""
        return self.plural.replace("_", "-")

    @property
    def forms(self) -> set[str]:
        """Each form that becomes a name in the code."""
        return {self.singular, self.plural, self.in_capitals}


def parse(text: str, plural: str | None) -> Name:
    """Return the name of a model.

    Args:
        text: one of the things that the table will contain, such as `order_item`.
        plural: many of them; by default formed as in most English words.

    Raises:
        RefusedError: it can't be a name in Python, or is a plural.
    """
    _check_word(text)
    if plural is not None:
        _check_word(plural)
    if plural is None and _looks_plural(text):
        raise RefusedError(
            f"{text} looks like a plural. Name one of them, such as"
            f" {_singular(text)}. If it is a singular, add its plural:"
            f" --plural {text}_list"
        )
    name = Name(text, _plural(text) if plural is None else plural)
    if name.singular == name.plural:
        raise RefusedError(
            f"{text} is also its own plural. Choose another: --plural {text}_list"
        )
    return name


def _check_word(word: str) -> None:
    if not NAME.fullmatch(word) or len(word) > LONGEST:
        near = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\W+", "_", word).lower().strip("_")
        hint = f" Did you mean {near}?" if NAME.fullmatch(near) else ""
        raise RefusedError(
            f"{word!r} can't be a name. Use lowercase ASCII letters, digits and"
            f" underscores, {LONGEST} at most, such as order_item.{hint}"
        )
    if keyword.iskeyword(word) or keyword.issoftkeyword(word):
        raise RefusedError(f"{word} is a keyword of Python. Choose another name.")


def check_free(app: Flask, name: Name) -> None:
    """Check that nothing has the name yet.

    Raises:
        RefusedError: a part of the service, of Python or of the written code has it.
    """
    package = Path(app.root_path)
    tables = set(db.metadata.tables)
    classes = {mapper.class_.__name__ for mapper in Model.registry.mappers}
    reserved = USED | set(dir(builtins)) | set(_names_in_templates(app))
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    endpoints = {name.plural, f"{name.plural}_api"} & set(app.blueprints)
    paths = [
        package / f"{name.plural}.py",
        package / name.plural,
        package / f"{name.plural}_api.py",
        package / "templates" / name.plural,
        package.parent / "tests/app" / f"test_{name.plural}.py",
    ]
    taken = next((path for path in paths if path.exists()), None)
    if name.plural in tables:
        reason = f"the table {name.plural} exists"
    elif name.in_capitals in classes:
        reason = f"the model {name.in_capitals} exists"
    elif taken:
        reason = f"{taken.relative_to(package.parent)} exists"
    elif endpoints:
        reason = f"the blueprint {endpoints.pop()} exists"
    elif any(f"{rule}/".startswith(f"/{name.path}/") for rule in rules):
        reason = f"URLs below /{name.path} exist"
    elif used := name.forms & reserved:
        reason = f"{used.pop()} has another meaning in Python or in the written code"
    else:
        return
    raise RefusedError(f"{name.singular} is taken: {reason}. Choose another name.")


def _names_in_templates(app: Flask) -> set[str]:
    """Return what templates read besides the arguments of `render_template`."""
    shared: set[str] = {"loop", "super", "self", *app.jinja_env.globals}
    context: dict[str, Any] = {}
    with app.test_request_context():
        app.update_template_context(context)
    return shared | context.keys()


def _plural(word: str) -> str:
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if re.search(r"(s|x|z|ch|sh)$", word) else f"{word}s"


def _looks_plural(word: str) -> bool:
    return bool(re.search(r"[^sui]s$|ies$", word))


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if re.search(r"(x|z|ch|sh|ss)es$", word) else word[:-1]
