"""The text of the new files: the templates in `sources/`, filled in."""

from collections.abc import Sequence
from pathlib import Path
from string import Template

from bulwark.ops.new.fields import Field
from bulwark.ops.new.names import Name

FOLDER = Path(__file__).parent / "sources"


def model(name: Name, fields: Sequence[Field]) -> tuple[str, str]:
    """Return the imports of the model, and its class."""
    values = _names(name)
    types = {field.kind.column.partition("(")[0] for field in fields} - {""}
    values["types"] = ", ".join(sorted({"ForeignKey", *types}))
    dates = {"date" for field in fields if field.kind.python == "date"}
    values["dates"] = ", ".join(sorted({"datetime", *dates}))
    values["columns"] = "\n".join(f"    {_column(field)}" for field in fields)
    return _fill("model_imports", values), _fill("model", values)


def new_files(name: Name, fields: Sequence[Field], *, with_api: bool) -> dict[str, str]:
    """Return each new file by its path."""
    values = _names(name) | _of_pages(name, fields) | _of_tests(fields, with_api)
    tests = ["test_pages"]
    tests += ["test_form"] if any(field.is_required for field in fields) else []
    files = {f"app/{name.plural}.py": _fill("pages", values)}
    for page in ("index", "show", "form"):
        path = f"app/templates/{name.plural}/{page}.html"
        files[path] = _fill(f"{page}.html", values)
    if with_api:
        tests.append("test_api")
        files[f"app/{name.plural}_api.py"] = _fill("api", values | _of_api(fields))
    files[f"tests/app/test_{name.plural}.py"] = "".join(
        _fill(test, values) for test in tests
    )
    return files


def _names(name: Name) -> dict[str, str]:
    article = name.with_article
    return {
        "Name": name.in_capitals,
        "name": name.singular,
        "names": name.plural,
        "path": name.path,
        "a_name": article,
        "A_name": article.capitalize(),
        "a_name_id": article.replace(" ", "_"),
        "word": name.word,
        "words": name.words,
        "Word": name.word.capitalize(),
        "Words": name.words.capitalize(),
    }


def _column(field: Field) -> str:
    annotation = f"{field.name}: Mapped[{field.annotation}]"
    column = field.kind.column
    return f"{annotation} = mapped_column({column})" if column else annotation


def _of_pages(name: Name, fields: Sequence[Field]) -> dict[str, str]:
    inputs = [(field, _validators(field)) for field in fields]
    used = {one.partition("(")[0] for _, checks in inputs for one in checks}
    validators = f"from wtforms.validators import {', '.join(sorted(used))}\n"
    title = next((f for f in fields if f.is_text and f.is_required), None)
    variable = f"{name.singular}.{title.name}" if title else f"{name.singular}.id"
    heading = "" if title else f"{name.word.capitalize()} "
    return {
        "form_fields": ", ".join(
            sorted({"SubmitField", *(field.kind.form_field for field in fields)})
        ),
        "form_validators": validators if used else "",
        "inputs": "\n".join(_input(field, checks) for field, checks in inputs),
        "assignments": "\n".join(_assignment(name, field) for field in fields),
        "link_text": f"{heading}{{{{ {variable} }}}}",
        "shown": "\n".join(_shown(name, field) for field in fields),
    }


def _validators(field: Field) -> list[str]:
    """Return the validators of an input."""
    checks = [field.kind.checks] if field.kind.checks else []
    label = field.label.lower()
    if field.is_required:
        # Text of nothing but spaces is missing; the number 0 is there.
        needed = "DataRequired" if field.is_text else "InputRequired"
        return [f'{needed}("Enter the {label}.")', *checks]
    return ["Optional()", *checks] if field.is_optional else checks


def _input(field: Field, checks: list[str]) -> str:
    validators = f", validators=[{', '.join(checks)}]" if checks else ""
    return f'    {field.name} = {field.kind.form_field}("{field.label}"{validators})'


def _assignment(name: Name, field: Field) -> str:
    empty = " or None" if field.is_text and field.is_optional else ""
    return f"    {name.singular}.{field.name} = form.{field.name}.data{empty}"


def _shown(name: Name, field: Field) -> str:
    value = f"{name.singular}.{field.name}"
    if field.kind_name == "boolean":
        text = f'{{{{ "yes" if {value} else "no" }}}}'
    elif field.is_optional:
        text = f'{{{{ "" if {value} is none else {value} }}}}'
    else:
        text = f"{{{{ {value} }}}}"
    return f"    <dt>{field.label}</dt>\n    <dd>{text}</dd>"


def _of_api(fields: Sequence[Field]) -> dict[str, str]:
    has_date = any(field.kind.python == "date" for field in fields)
    return {
        "api_dates": "from datetime import date\n" if has_date else "",
        "api_inputs": "\n".join(f"    {_typed_input(field)}" for field in fields),
        "api_outputs": "\n".join(
            f"    {field.name}: {field.annotation}" for field in fields
        ),
    }


def _typed_input(field: Field) -> str:
    default = "None" if field.is_optional else ""
    if field.kind_name == "boolean":
        default = "False"
    if limits := field.kind.limits:
        limits = f"{default}, {limits}" if default else limits
        return f"{field.name}: {field.annotation} = Field({limits})"
    assigned = f" = {default}" if default else ""
    return f"{field.name}: {field.annotation}{assigned}"


def _of_tests(fields: Sequence[Field], with_api: bool) -> dict[str, str]:
    form = ", ".join(f'"{field.name}": {field.kind.example}' for field in fields)
    values = ", ".join(f'"{field.name}": {field.kind.json}' for field in fields)
    shared = "ApiClients, Visitor, add_person" if with_api else "Visitor, add_person"
    return {
        "form_values": form,
        "test_json": f"JSON = {{{values}}}\n" if with_api else "",
        "test_imports": (
            f"from flask import Flask\n\nfrom tests.conftest import {shared}\n"
        ),
        "and_in_the_api": " and in the API" if with_api else "",
    }


def _fill(source: str, values: dict[str, str]) -> str:
    text = (FOLDER / f"{source}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(values)
