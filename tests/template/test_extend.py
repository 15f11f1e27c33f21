"""The examples of docs/extend.md, done to new services as a reader would."""

import os
import socket
import ssl
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environments import check_types, python_of
from tests.support.guide import (
    CSP,
    DEPENDENCY,
    INPUT,
    JOB,
    MODEL,
    NGINX,
    PAGES,
    PERMISSION,
    SETTING,
    STYLE,
    USER,
    Service,
    changing_its_own_files,
    copy_of,
    merge,
)
from tests.support.servers import Nginx, Postgres
from tests.support.visitor import exchange


@pytest.fixture
def service(ready: Path, tmp_path: Path) -> Service:
    """Return a service of this test's own."""
    return copy_of(ready, tmp_path / "service")


@pytest.fixture
def team(service: Service) -> Iterator[Service]:
    """Return a service whose team changes nothing but its own files."""
    with changing_its_own_files(service):
        yield service


# --- Each by itself ---------------------------------------------------------

COMPANY_OF_THE_USER = """
from sqlalchemy import select

from app.models import Company, User
from bulwark import db
from tests.conftest import add_person


def test_the_user_has_a_phone_and_a_company(app):
    add_person(app, "zoe@example.org")
    with app.app_context():
        zoe = db.session.scalar(select(User))
        zoe.phone, zoe.company = "+49 30 123", Company(name="Acme")
        db.session.commit()
    with app.app_context():
        acme = db.session.scalar(select(Company))
        assert [(p.email, p.phone) for p in acme.people] == [
            ("zoe@example.org", "+49 30 123")
        ]
"""

INVOICE = """
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.models import Invoice, User
from bulwark import db
from tests.conftest import add_person


def add_invoice(app, number, email):
    with app.app_context():
        customer = db.session.scalar(select(User).where(User.email == email))
        db.session.add(Invoice(number=number, cents=4250, customer=customer))
        db.session.commit()


def test_an_invoice_has_a_customer_who_exists(app, person):
    add_invoice(app, "1", person)
    with app.app_context():
        invoice = db.session.scalar(select(Invoice))
        assert (invoice.cents, invoice.customer.email) == (4250, person)
        assert invoice.created_at.tzinfo
        db.session.add(Invoice(number="2", cents=1, customer_id=4711))
        with pytest.raises(IntegrityError):
            db.session.commit()
        db.session.rollback()
"""

PAGES_OF_INVOICES = """
def test_customers_see_their_own_invoices_only(app, visitor, other_visitor, person):
    other = add_person(app, "ada@example.org")
    add_invoice(app, "2026-1", person)
    visitor.sign_in(person)
    other_visitor.sign_in(other)
    assert "2026-1" in visitor.get("/invoices/").text
    assert "42.50" in visitor.get("/invoices/2026-1").text
    assert 'href="/invoices/"' in visitor.get("/").text
    assert "2026-1" not in other_visitor.get("/invoices/").text
    assert other_visitor.get("/invoices/2026-1").status_code == 404
"""

BOOKS_FOR_BOOKKEEPERS = """
def test_the_books_open_for_bookkeepers_only(app, visitor, other_visitor, person):
    bookkeeper = add_person(app, "ada@example.org", "bookkeeper")
    add_invoice(app, "2026-1", person)
    assert visitor.get("/books").location.startswith("/login")
    visitor.sign_in(person)
    assert visitor.get("/books").status_code == 403
    other_visitor.sign_in(bookkeeper)
    assert "2026-1: zoe@example.org" in other_visitor.get("/books").text
"""

IMAGES_FROM_ELSEWHERE = """
def test_the_policy_holds_the_source(visitor):
    policy = visitor.get("/").headers["Content-Security-Policy"]
    (images,) = [d for d in policy.split("; ") if d.startswith("img-src ")]
    assert "https://images.example.com" in images.split()
"""

STYLE_OF_AMOUNTS = """
def test_every_page_loads_the_style(visitor):
    assert 'rel="stylesheet" href="/static/app.css?v=' in visitor.get("/").text
    with visitor.get("/static/app.css") as style:
        assert style.mimetype == "text/css"
        assert ".amount" in style.text
"""

EXPENSES = """
def test_people_claim_what_they_spent(app, visitor, person):
    visitor.sign_in(person)
    visitor.submit("/expenses/", {"title": "Train", "cents": "4250"})
    bus = {"title": "Bus", "cents": 320}
    assert visitor.send("/expenses/json", bus).status_code == 201
    page = visitor.get("/expenses/").text
    assert "Train" in page
    assert "Bus" in page
    for wrong in ([bus], bus | {"title": 5}, bus | {"cents": 10**20}, {"cents": 320}):
        assert visitor.send("/expenses/json", wrong).status_code == 400
"""

REPORT = """
from bulwark import queue


def test_a_user_gets_a_report_by_email(app, visitor, person):
    visitor.sign_in(person)
    headers = {
        "X-CSRFToken": visitor.csrf_token("/account"),
        "Referer": "https://localhost/account",
    }
    answers = [visitor.client.post("/reports/", headers=headers) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [302] * 5 + [429]
    for _ in range(5):
        queue.execute(queue.dequeue())
    letters = [m for m in visitor.letters() if m["Subject"] == "Your report"]
    assert [letter["To"] for letter in letters] == [person] * 5
    assert person in letters[0].get_body(("plain",)).get_content()
"""

PROOFS = (
    COMPANY_OF_THE_USER,
    INVOICE,
    PAGES_OF_INVOICES,
    BOOKS_FOR_BOOKKEEPERS,
    IMAGES_FROM_ELSEWHERE,
    STYLE_OF_AMOUNTS,
    EXPENSES,
    REPORT,
)


def test_a_team_adds_a_column_and_a_relationship_to_the_user(team: Service) -> None:
    seed = team.migrations()
    team.follow(USER)
    assert len(team.migrations() - seed) == 1
    team.is_fully_migrated()
    team.proves(COMPANY_OF_THE_USER)


def test_a_team_adds_a_model_with_a_migration(team: Service) -> None:
    seed = team.migrations()
    team.follow(MODEL)
    assert len(team.migrations() - seed) == 1
    team.proves(INVOICE)


def test_a_team_adds_a_blueprint_with_pages(team: Service) -> None:
    team.follow(PAGES)
    team.proves(INVOICE, PAGES_OF_INVOICES)


def test_a_team_adds_a_permission_and_a_role(team: Service) -> None:
    team.follow(PERMISSION)
    team.proves(INVOICE, BOOKS_FOR_BOOKKEEPERS)


def test_a_team_adds_a_setting_with_validation(team: Service) -> None:
    team.follow(SETTING)
    show = "import wsgi; print(wsgi.app.config['PAYMENT_DAYS'])"
    assert team.python(show, APP_PAYMENT_DAYS="14") == "14"
    refusal = team.refusal("bin/flask", "routes", APP_PAYMENT_DAYS="soon")
    assert team.text(SETTING) in refusal


def test_a_team_adds_a_source_to_the_policy(team: Service) -> None:
    team.follow(CSP)
    team.proves(IMAGES_FROM_ELSEWHERE)


def test_a_team_adds_a_style(team: Service) -> None:
    team.follow(STYLE)
    team.proves(STYLE_OF_AMOUNTS)


@pytest.mark.needs("nginx")
def test_a_team_adds_an_nginx_location(team: Service, tmp_path: Path) -> None:
    team.follow(NGINX)
    answers = tomllib.loads((team.folder / "service.toml").read_text())
    domain, slug = answers["domain"], answers["slug"]
    nginx = Nginx(team.folder, domain, slug, tmp_path / "nginx")
    trust = ssl.create_default_context(cafile=str(nginx.certificate))
    with (
        nginx.running(),
        socket.create_connection(("127.0.0.1", nginx.ports[443])) as plain,
        trust.wrap_socket(plain, server_hostname=domain) as stream,
    ):
        robots = exchange(stream, "GET", "/robots.txt", headers={"Host": domain})
    assert robots.body == "User-agent: *\nDisallow: /invoices/\n"
    assert robots.headers["X-Content-Type-Options"] == "nosniff"


def test_a_team_adds_a_dependency(team: Service) -> None:
    read = "from app.suppliers import number_of; print(number_of(b'<I><ID>7</ID></I>'))"
    production = {"UV_PROJECT_ENVIRONMENT": str(team.folder / "production")}
    team.follow(DEPENDENCY)
    assert team.python(read) == "7"
    # Tools of development bring this package too, so look without them.
    uv = os.environ.get("UV", "uv")
    team.run(uv, "sync", "--frozen", "--no-group=dev", **production)
    assert team.run("production/bin/python", "-c", read).strip() == "7"


def test_a_team_takes_a_form_and_json(team: Service) -> None:
    team.follow(INPUT)
    team.proves(EXPENSES)


def test_a_team_adds_a_limit_a_job_and_an_email(team: Service) -> None:
    team.follow(JOB)
    team.proves(REPORT)


# --- What the base's own tests allow -------------------------------------------------

ORDINARY = {
    "app/settings.py": """
from bulwark import setting, whole_number

@dataclass(frozen=True, kw_only=True)
class Settings:
    \"\"\"Your settings, each read from APP_<NAME>.\"\"\"

    stripe_key: str = setting("the key of the payments", required=True, secret=True)
    seats: int = setting(
        "how many there are", default=None, cast=whole_number(1, 9), required=True
    )

CSP_SOURCES: dict[str, list[str]] = {
    "connect-src": ["https://api.stripe.com", "wss://*.pusher.com"],
    "form-action": ["https://checkout.stripe.com"],
    "frame-src": ["https://js.stripe.com"],
    "img-src": ["https://*.tile.openstreetmap.org"],
    "script-src": ["https://js.stripe.com"],
    "style-src": ["https://fonts.example.com"],
}
""",
    "app/views.py": """
import nh3
from markupsafe import Markup

@blueprint.app_template_filter()
def rich(text: str) -> Markup:
    \"\"\"Let formatting through, and nothing else.\"\"\"
    return Markup(nh3.clean(text))
""",
}
RICH_TEXT = """
from flask import render_template_string


def test_formatting_is_shown_and_scripts_are_not(app):
    text = "<b>bold</b><script>alert()</script>"
    with app.app_context():
        assert render_template_string("{{ text | rich }}", text=text) == "<b>bold</b>"
"""


def test_what_teams_ordinarily_declare_leaves_every_check_green(
    team: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for file, added in ORDINARY.items():
        path = team.folder / file
        path.write_text(merge(path.read_text(), added))
    team.run(".venv/bin/ruff", "check", "--select=I", "--fix", "--quiet", "app")
    team.run(".venv/bin/ruff", "format", "--quiet", "app")
    team.run(".venv/bin/ruff", "check")
    check_types(team.folder, tmp_path_factory)
    team.keep(RICH_TEXT)
    names = ("settings", "test_service.py", "web/test_headers.py", "web/test_paths.py")
    paths = ("tests/app", *(f"tests/bulwark/{name}" for name in names))
    team.run("bin/test", "-q", "-n0", *paths)


# --- Together -------------------------------------------------------------------------


def test_a_service_with_all_of_it_passes_every_check(
    team: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    team.follow(*range(1, 12))
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    check_types(team.folder, tmp_path_factory)
    team.proves(*PROOFS)


CHAPTERS = (
    *("accounts.md", "api.md", "data.md", "email.md", "embedding.md", "forms.md"),
    *("jobs.md", "pages.md", "rich_text.md", "uploads.md"),
)


@pytest.mark.needs("postgresql")
@pytest.mark.timeout(1200)  # it runs the whole suite of a service
def test_a_service_with_all_of_it_passes_all_tests_on_postgresql(
    team: Service, postgres: Postgres
) -> None:
    team.has_python(python_of("with all examples"))
    team.follow(*range(1, 12))
    for chapter in CHAPTERS:
        guide = Service(team.folder, chapter)
        guide.follow(*range(1, len(guide.examples)))
    team.keep("\n".join(PROOFS))
    url = postgres.database()
    team.run("bin/flask", "prepare", APP_DATABASE_URL=url)
    team.run("bin/test", APP_DATABASE_URL=url)
