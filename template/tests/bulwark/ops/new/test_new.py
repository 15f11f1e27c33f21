"""`flask new`: what it refuses, and what it adds to files of the team."""

import ast
from pathlib import Path

import pytest
from flask import Flask

from bulwark.ops.new import edits, fields, names, sources
from bulwark.ops.new.names import Name, RefusedError

BOOK = Name("book", "books")
MODELS = '"""Models."""\n\nfrom bulwark import BaseUser\n\n\nclass User(BaseUser): 1\n'
APP = '''"""The app."""

import bulwark
from app import permissions, views


def create_app():
    app = Flask(__name__)
    app.register_blueprint(views.blueprint)
    bulwark.init_app(app, user_model=User{more})
    return app
'''


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("book", "books"),
        ("order_item", "order_items"),
        ("city", "cities"),
        ("day", "days"),
        ("box", "boxes"),
        ("address", "addresses"),
        ("status", "statuses"),
    ],
)
def test_a_plural_is_formed(singular: str, plural: str):
    assert names.parse(singular, None) == Name(singular, plural)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("books", "such as book"),
        ("cities", "such as city"),
        ("boxes", "such as box"),
        ("OrderItem", "Did you mean order_item"),
        ("order-item", "Did you mean order_item"),
        ("../book", "Did you mean book"),
        ("bücher", "lowercase ASCII letters"),
        ("2book", "lowercase ASCII letters"),
        ("", "lowercase ASCII letters"),
        ("b" * 27, "26 at most"),
        ("class", "keyword of Python"),
        ("match", "keyword of Python"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(name: str, reason: str):
    with pytest.raises(RefusedError, match=reason):
        names.parse(name, None)


def test_an_irregular_plural_is_given():
    assert names.parse("person", "people").plural == "people"
    with pytest.raises(RefusedError, match="its own plural"):
        names.parse("news", "news")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("user", "the table users exists"),
        ("session", "the table sessions exists"),
        ("login", ""),
        ("change", ""),
        ("flash", "another meaning"),
        ("exception", "another meaning"),
        ("request", "another meaning"),
        ("page", "another meaning"),
    ],
)
def test_a_taken_name_is_refused(app: Flask, name: str, reason: str):
    plural = name if name in ("login", "change") else None
    parsed = Name(f"a_{name}", plural) if plural else names.parse(name, None)
    with pytest.raises(RefusedError, match=f"is taken: .*{reason}"):
        names.check_free(app, parsed)


def test_the_name_of_a_module_of_the_team_is_refused(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(app, "root_path", str(tmp_path))
    name = names.parse("zebra_stripe", None)
    names.check_free(app, name)
    (tmp_path / "zebra_stripes.py").touch()
    with pytest.raises(RefusedError, match="zebra_stripes"):
        names.check_free(app, name)


def test_no_name_replaces_what_the_written_code_imports():
    kinds = [fields.Field(f"f_{kind}", kind, False) for kind in fields.KINDS]
    optional = [fields.Field(f"o_{kind}", kind, True) for kind in ("text", "date")]
    chosen = [*kinds, *optional]
    imports, _ = sources.model(BOOK, chosen)
    files = sources.new_files(BOOK, chosen, with_api=True)
    code = [text for path, text in files.items() if path.startswith("app/b")]
    assert len(code) == 2
    imported = {
        alias.name
        for text in (imports, *code)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported - {"Any", "Book"} <= names.USED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("title:str", "Kinds are string, text"),
        ("title:", "is no field"),
        (":string", "is no field"),
        ("Title", "can't be the name"),
        ("class", "can't be the name"),
        ("id:integer", "has the field id already"),
        ("user_id", "has the field user_id already"),
        ("metadata", "another meaning"),
        ("data:text", "another meaning"),
        ("model_year:integer", "another meaning"),
        ("date:date", "another meaning"),
        ("read:boolean?", "ticked or not"),
    ],
)
def test_what_is_no_field_is_refused_with_the_reason(text: str, reason: str):
    with pytest.raises(RefusedError, match=reason):
        fields.parse_all([text])


def test_two_fields_with_one_name_are_refused():
    with pytest.raises(RefusedError, match="Two fields are called title"):
        fields.parse_all(["title", "title:text"])


def test_the_blueprints_are_registered_before_the_base_is_set_up():
    added = edits.app(APP.format(more=""), BOOK, with_api=True)
    before, _, after = added.partition("bulwark.init_app(")
    assert "app.register_blueprint(books.blueprint)" in before
    assert "app.register_blueprint(books_api.api)" in before
    assert "everyone=permissions.EVERYONE" in after
    again = edits.app(added, Name("note", "notes"), with_api=True)
    assert again.count("everyone=") == 1


def test_an_app_that_is_set_up_otherwise_is_refused():
    for wrong in ("", "bulwark.init_app()", APP.format(more="") + "init_app(app)\n"):
        with pytest.raises(RefusedError, match=r"no line `bulwark\.init_app"):
            edits.app(wrong, BOOK, with_api=False)


def test_permissions_that_nobody_would_have_are_refused():
    with pytest.raises(RefusedError, match="passes `everyone="):
        edits.app(APP.format(more=", everyone=[]"), BOOK, with_api=True)


def test_permissions_are_added_to_those_that_exist():
    mine = 'PERMISSIONS = {\n    "é:read": "é",  # mine\n}\nEVERYONE = ["é:read"]\n'
    added = edits.permissions(mine, BOOK)
    values: dict[str, object] = {}
    exec(added, values)
    assert values["PERMISSIONS"] == {
        "books:read": "Read your books",
        "books:write": "Change your books",
        "é:read": "é",
    }
    assert values["EVERYONE"] == ["books:read", "books:write", "é:read"]
    assert "# mine" in added
    with pytest.raises(RefusedError, match="--no-api"):
        edits.permissions("PERMISSIONS = dict()\n", BOOK)


def test_a_name_that_models_use_otherwise_is_refused():
    imports, cls = sources.model(BOOK, fields.parse_all(["title"]))
    assert "class Book(Model)" in edits.model(MODELS, imports, cls)
    other = MODELS.replace("from bulwark", "import datetime\nfrom bulwark")
    with pytest.raises(RefusedError, match="another datetime"):
        edits.model(other, imports, cls)


def test_code_is_written_in_development_only(app: Flask):
    done = app.test_cli_runner().invoke(args=["new", "book"])
    assert done.exit_code == 1
    assert "in development only" in done.output
    assert "Nothing was written" in done.output
