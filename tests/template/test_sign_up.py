"""docs/accounts.md, done to a new service as a reader would."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guide import Service, changing_its_own_files, copy_of

FIELDS, TERMS, ROLE, INVITATION = range(1, 5)
# What the base's own tests check of sign-up, of accounts and of each route and model.
SHIPPED = (
    *("identity", "account", "admin", "audit/test_events.py", "database"),
    *("ops/test_prepare.py", "test_facade.py", "test_service.py", "uploads"),
    *("web/test_access.py", "web/test_access_matrix.py", "web/test_hostile.py"),
    *("mail/test_outbox.py", "web/test_signatures.py", "web/test_signing_keys.py"),
    *("web/test_rate_limits.py", "web/test_errors.py", "test_costs.py"),
)
INVITED = """
from tests.conftest import GOOD_PASSWORD
from tests.support import find_user

EMAIL = "zoe@example.org"
WHO = {
    "display_name": "Zoe <b>Quill</b>",
    "organization": "",
    "time_zone": "Asia/Tokyo",
}


def test_an_invited_user_fills_in_the_form(app, visitor):
    output = app.test_cli_runner().invoke(args=["accounts", "invite", EMAIL]).output
    assert "within 72 hours" in output
    link = output.strip().split("https://localhost")[-1]
    for field in ("Your name", "Organization", "Time zone", "Password", "terms of use"):
        assert field in visitor.get(link).text
    form = {"password": GOOD_PASSWORD, **WHO, "accept_terms": "2026-11"}
    for wrong, message in (
        ({"display_name": ""}, "Enter your name."),
        ({"organization": "x" * 121}, "Use 120 characters at most; this has 121."),
        ({"time_zone": "Mars"}, "Not a valid choice."),
        ({"accept_terms": "2025-01"}, "accept them to continue"),
        ({"password": "short"}, "Use 15 characters or more"),
    ):
        assert message in visitor.submit(link, form | wrong).text
    with app.app_context():
        user = find_user(app, EMAIL)
        assert (user.password, user.display_name) == (None, "")
    assert visitor.submit(link, form).location == "/login"
    with app.app_context():
        user = find_user(app, EMAIL)
        assert (user.display_name, user.organization) == (WHO["display_name"], None)
        assert user.accepted_terms_version == "2026-11"
        assert [role.name for role in user.roles] == ["customer"]
    visitor.sign_in(EMAIL)
    account = visitor.get("/account").text
    assert "Zoe &lt;b&gt;Quill&lt;/b&gt;" in account
    assert "Asia/Tokyo" in account


def test_nobody_else_signs_up(visitor):
    page = visitor.get("/register")
    assert "Accounts are by invitation" in page.text
    assert 'href="/register' not in visitor.get("/").text
"""
# Fields that values derived from their types do not fit.
STRICT = """
from wtforms import DateField, IntegerField, SelectField, StringField, TextAreaField
from wtforms.validators import DataRequired, Length, NumberRange, Regexp

from bulwark import ProfileForm, SignUp


class Profile(ProfileForm):
    username = StringField("User name", validators=[DataRequired(), Regexp("^[a-z]+$")])
    staff_number = StringField("Number", validators=[Regexp("^S-[0-9]{4}$")])
    team = SelectField("Team", choices=[("", "Choose"), ("a", "A")],
                       validators=[DataRequired()])
    seats = IntegerField("Seats", validators=[NumberRange(min=3, max=9)])
    about = TextAreaField("About", validators=[Length(min=30)])
    born = DateField("Born")


SIGN_UP: SignUp = SignUp(mode="closed", form=Profile)
"""
STRICT_MODEL = """
from datetime import date

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import BaseUser


class User(BaseUser):
    username: Mapped[str | None] = mapped_column(String(80), unique=True)
    staff_number: Mapped[str] = mapped_column(String(80))
    team: Mapped[str] = mapped_column(String(8))
    seats: Mapped[int]
    about: Mapped[str]
    born: Mapped[date | None]
"""
VALUES = """
def values(email: str) -> dict[str, str]:
    return {"staff_number": "S-1234"}
"""
ABOUT_SIGN_UP = ("identity/test_signup.py", "identity/test_sign_up_choices.py")


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "accounts.md")
    with changing_its_own_files(service):
        yield service


def shipped(team: Service, *tests: str) -> str:
    """Run tests of the base; return the summary."""
    paths = (f"tests/bulwark/{name}" for name in tests)
    return team.run("bin/test", "-q", "-n0", *paths)


def test_a_team_chooses_who_signs_up_and_every_check_passes(team: Service) -> None:
    team.follow(FIELDS, TERMS, ROLE, INVITATION)
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(INVITED)
    summary = shipped(team, *SHIPPED).splitlines()[-1]
    assert "failed" not in summary


def test_each_step_stands_alone(team: Service) -> None:
    for step in (FIELDS, TERMS, ROLE):
        team.follow(step)
        shipped(team, *ABOUT_SIGN_UP, "account/test_profile.py", "test_service.py")


def test_tests_fill_in_fields_with_strict_validators(team: Service) -> None:
    team.follow(FIELDS)
    for name in team.migrations() - {"0001_app.py"}:
        (team.folder / "app/migrations" / name).unlink()
    (team.folder / "app/models.py").write_text(f'"""Models."""\n{STRICT_MODEL}')
    (team.folder / "app/sign_up.py").write_text(f'"""Sign-up."""\n{STRICT}')
    (team.folder / "tests/app/sign_up.py").unlink()
    for database in team.folder.glob("instance/*.db*"):
        database.unlink()
    team.run("bin/flask", "db", "upgrade", "heads")
    team.run("bin/flask", "db", "migrate", "-m", "strict fields")
    tests = [f"tests/bulwark/{name}" for name in (*ABOUT_SIGN_UP, "account")]
    refusal = team.run("sh", "-c", f"! bin/test -q -n0 {tests[0]} 2>&1")
    assert "function `values(email)` in tests/app/sign_up.py" in refusal
    (team.folder / "tests/app/sign_up.py").write_text(f'"""Values."""\n{VALUES}')
    team.run("bin/test", "-q", "-n0", *tests)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ('mode="open"', "the mode 'open' is not one of 'public'"),
        ("invitation_hours=1000", "1000 is not a whole number from 1 to 720"),
        ('role="customer"', "is not declared: add it to ROLES in app/permissions.py"),
    ],
)
def test_a_choice_that_cannot_work_is_explained(
    team: Service, choice: str, reason: str
) -> None:
    team.follow(FIELDS)
    path = team.folder / "app/sign_up.py"
    path.write_text(path.read_text().replace("SignUp(form", f"SignUp({choice}, form"))
    shown = team.run("sh", "-c", "! bin/flask routes 2>&1")
    assert reason in shown
