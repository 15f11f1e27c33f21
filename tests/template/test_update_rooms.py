"""A service from before the base had rooms: its update, and bin/codemod."""

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from copier import run_copy

from tests.conftest import ROOT, commit, git, run
from tests.support.environments import check_types
from tests.support.quick_copier import IN_PROCESSES
from tests.template.edits import append, migrate, replace, write
from tests.template.edits.dependency import FIRST
from tests.template.edits.models import CHANGE, MODEL

BEFORE = "d1c9a73"  # the last commit without rooms
KNOWN = subprocess.run(("git", "cat-file", "-e", BEFORE), cwd=ROOT, check=False)
pytestmark = pytest.mark.skipif(
    KNOWN.returncode != 0,
    reason=f"needs the commit {BEFORE}, which a shallow clone does not have",
)
USER = "from bulwark.identity.models import BaseUser\n"
IMPORTS = f"""\
from sqlalchemy import ForeignKey
from sqlalchemy import String as Text
from sqlalchemy.orm import Mapped, mapped_column

from bulwark.database import Model
{USER}"""
VIEWS = '''\
"""Invoices, for whoever has to pay them."""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue
from flask_login import current_user
from sqlalchemy import select

import bulwark.database as base
from app.models import Invoice
from bulwark import access, limits
from bulwark.access import (
    recent,  # a password is asked for
    signed_in,
)
from bulwark.mail import send

blueprint = Blueprint("invoices", __name__, url_prefix="/invoices")


@blueprint.get("/")
@signed_in
@limits.limit("60 per hour")
def index() -> ResponseReturnValue:
    """List invoices of the signed-in user."""
    chosen = select(Invoice).filter_by(customer_id=current_user.id)
    found = base.db.session.scalars(chosen)
    return jsonify([invoice.number for invoice in found])


@blueprint.get("/price")
@access.public
def price() -> ResponseReturnValue:
    """Tell what an invoice costs."""
    return jsonify(price=1)


@blueprint.post("/remind")
@signed_in
@recent
def remind() -> ResponseReturnValue:
    """Remind the signed-in user."""
    send("Your invoices", current_user.email, "Please pay.")
    base.db.session.commit()
    return "", 204
'''
TESTS = '''\
"""Invoices."""

from flask import Flask
from sqlalchemy import select

from app.models import Invoice, User
from bulwark.database import db
from tests.conftest import Visitor


def test_a_customer_sees_invoices(app: Flask, visitor: Visitor, person: str):
    with app.app_context():
        customer = db.session.scalars(select(User).filter_by(email=person)).one()
        db.session.add(Invoice(number="2026-1", customer_id=customer.id))
        db.session.commit()
    assert visitor.get("/invoices/price").get_json() == {"price": 1}
    visitor.sign_in(person)
    assert visitor.get("/invoices/").get_json() == ["2026-1"]


def test_a_customer_is_reminded(visitor: Visitor, person: str, monkeypatch):
    sent = []
    monkeypatch.setattr("app.invoices.send", lambda *letter: sent.append(letter))
    visitor.sign_in(person)
    visitor.send("/invoices/remind", {})
    assert len(sent) == 1


def test_our_page_is_shown(visitor: Visitor, person: str):
    visitor.sign_in(person)
    page = visitor.get("/account/activity").get_data(as_text=True)
    assert "<h1>Our log</h1>" in page
    assert "You signed in" in page
'''


def edit(service: Path) -> None:
    """Do what the team did."""
    models = service / "app/models.py"
    replace(models, USER, IMPORTS)
    append(models, MODEL)
    migrate(service, "invoices", CHANGE)
    write(service / "app/invoices.py", VIEWS)
    replace(
        service / "app/__init__.py",
        "import permissions,",
        "import invoices, permissions,",
    )
    blueprint = "    app.register_blueprint(views.blueprint)\n"
    added = blueprint.replace("views", "invoices")
    replace(service / "app/__init__.py", blueprint, blueprint + added)
    write(service / "tests/app/test_invoices.py", TESTS)
    append(service / "pyproject.toml", '\n[tool.ours]\nname = "kept"\n')
    replace(service / "pyproject.toml", FIRST, f'{FIRST}  "defusedxml>=0.7",\n')
    append(service / ".gitignore", "\n/node_modules/\n")
    base = service / "bulwark/templates/bulwark"
    page = service / "app/templates/bulwark/activity.html"
    write(page, (base / page.name).read_text())
    replace(page, "<h1>Activity</h1>", "<h1>Our log</h1>")


@pytest.fixture(scope="module")
def updated(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, str]:
    """Return a service after an update, as it was before, and the update's report."""
    service = tmp_path_factory.mktemp("rooms") / "service"
    run_copy(
        str(template), service, defaults=True, unsafe=True, quiet=True, vcs_ref=BEFORE
    )
    edit(service)
    run("bin/setup", cwd=service)
    commit(service)
    before = service.with_name("before")
    leave = shutil.ignore_patterns(".venv", ".git", "instance")
    shutil.copytree(service, before, symlinks=True, ignore=leave)
    report = run("bin/update", cwd=service, env=os.environ | IN_PROCESSES)
    return service, before, report


def test_edits_are_kept_and_what_they_need_is_listed(
    updated: tuple[Path, Path, str],
) -> None:
    service, before, report = updated
    for folder in ("app", "tests/app"):
        assert not git(service, "status", "--porcelain", "--", folder)
    for name, line in (
        ("pyproject.toml", '  "defusedxml>=0.7",\n'),
        ("pyproject.toml", '[tool.ours]\nname = "kept"\n'),
        (".gitignore", "\n/node_modules/\n"),
    ):
        assert line in (before / name).read_text()
        assert line in (service / name).read_text()
    assert (service / "bulwark/web/access.py").exists()
    assert "## Conflicts" not in report
    own = report.partition("\n## Your code\n")[2]
    assert "`bin/codemod`" in own
    for number, line, now in (
        *listed("app/invoices.py", VIEWS, "base.db.session.scalars", "import db"),
        *listed("app/invoices.py", VIEWS, "@access.public", "import public"),
        *listed("app/invoices.py", VIEWS, "    recent,", "import recent"),
        *listed("app/invoices.py", VIEWS, "import send", "import send_email"),
        *listed("tests/app/test_invoices.py", TESTS, "import db", "import db"),
    ):
        assert re.search(rf"^{line}:{number}: .*{now}$", own, re.MULTILINE), own
    assert "app/models.py:7: bulwark.database.Model → from bulwark import Model" in own
    page = "app/templates/bulwark/activity.html"
    assert f"{page}:2: bulwark/facts.html → bulwark/_display.html\n" in own
    assert f"{page}:2: happening → event_row\n" in own


def listed(path: str, text: str, line: str, now: str) -> Iterator[tuple[int, str, str]]:
    """Yield the number of the line, its file and what it has to become."""
    (number,) = [at for at, has in enumerate(text.splitlines(), 1) if line in has][:1]
    yield number, path, now


def test_the_command_brings_the_teams_code_up_to_date(
    updated: tuple[Path, Path, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    service, *_ = updated
    base = git(service, "status", "--porcelain", "--", "bulwark", "tests/bulwark")
    run("bin/codemod", cwd=service)
    assert run("bin/codemod", "--check", cwd=service) == ""
    run("bin/setup", cwd=service)
    tools = service / ".venv/bin"
    run(tools / "ruff", "check", cwd=service)
    run(tools / "ruff", "format", "--check", cwd=service)
    run(tools / "lint-imports", cwd=service)
    check_types(service, tmp_path_factory, "app", "tests/app")
    checks = ("tests/app", "tests/bulwark/test_facade.py")
    run("bin/test", "-n0", "-q", *checks, cwd=service)
    assert (
        git(service, "status", "--porcelain", "--", "bulwark", "tests/bulwark") == base
    )


# --- What is stored, or read by others, keeps its name --------------------------------


def constants(tree: ast.AST) -> set[str]:
    """Return all texts of a module."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def events(tree: ast.AST) -> Iterator[str]:
    """Yield the keys of the catalogue."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key and ast.unparse(value).startswith("Kind("):
                    yield ast.literal_eval(key)


def tasks(tree: ast.AST) -> Iterator[str]:
    """Yield the names of Huey's tasks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and "task" in ast.unparse(node.func):
            for keyword in node.keywords:
                if keyword.arg == "name":
                    yield ast.literal_eval(keyword.value)


def metrics(tree: ast.AST) -> Iterator[str]:
    """Yield the names of metrics, the first argument of what makes them."""
    makes = re.compile(r"(?i)\b_?(gauge|moment|counter|histogram)(metricfamily)?$")
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=made, args=[ast.Constant(value=str(name)), *_]):
                if makes.search(ast.unparse(made)):
                    yield name


@pytest.mark.parametrize(("names", "least"), [(events, 40), (tasks, 12), (metrics, 20)])
def test_stored_names_stay(
    names: Callable[[ast.AST], Iterator[str]], least: int, tmp_path: Path
) -> None:
    archive = ("git", "archive", BEFORE, "template/bulwark")
    packed = subprocess.run(archive, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    subprocess.run(("tar", "x"), cwd=tmp_path, input=packed.stdout, check=True)
    before = {name for tree in trees(tmp_path) for name in names(tree)}
    assert len(before) >= least
    now = set().union(*map(constants, trees(ROOT)))
    assert before - now == set()


def trees(folder: Path) -> Iterator[ast.AST]:
    for path in sorted((folder / "template/bulwark").rglob("*.py")):
        yield ast.parse(path.read_bytes())


def test_migrations_stay() -> None:
    folder = "template/bulwark/migrations/versions"
    assert git(ROOT, "ls-tree", "--name-only", f"{BEFORE}:{folder}")
    assert not git(
        ROOT, "diff", "--diff-filter=DMR", "--name-only", BEFORE, "--", folder
    )
