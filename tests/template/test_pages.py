"""docs/pages.md, done to a new service as a reader would, and seen in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.support.chromium import ARGUMENTS, CHROMIUM, Visitor, developed
from tests.support.guide import Service, changing_its_own_files, copy_of

BRAND, LIST, ACCOUNT = 1, 2, 3
EMAIL = "zoe@example.com"

PROJECTS = """
import re

from sqlalchemy import select

from app.models import Project, User
from bulwark import db


def add_projects(app, email, count):
    with app.app_context():
        owner = db.session.scalar(select(User).where(User.email == email))
        for number in range(count):
            db.session.add(
                Project(name=f"Plan {number:02}", budget=1000, owner_id=owner.id)
            )
        db.session.commit()


def names(page):
    return re.findall('<th data-label="Name" scope="row">(.*?)</th>', page)


def test_projects_are_listed_filtered_and_closed(app, visitor, person):
    visitor.sign_in(person)
    assert "You have no projects yet." in visitor.get("/projects/").text
    add_projects(app, person, 45)
    first = visitor.get("/projects/").text
    assert names(first) == [f"Plan {number:02}" for number in range(20)]
    assert 'href="/projects/" aria-current="page"' in first
    assert '<td data-label="Budget" data-number>1,000 €</td>' in first
    third = visitor.get("/projects/?page=3&status=open").text
    assert names(third) == [f"Plan {number:02}" for number in range(40, 45)]
    assert 'href="?status=open&amp;page=2" rel="prev"' in third
    closing = re.search('action="(/projects/[0-9]+/close)"', first)[1]
    token = visitor.csrf_token("/projects/")
    headers = {"Referer": "https://localhost/projects/"}
    visitor.client.post(closing, data={"csrf_token": token}, headers=headers)
    assert '<p class="message success"' in visitor.get("/projects/").text
    assert names(visitor.get("/projects/?status=closed").text) == ["Plan 00"]
    assert names(visitor.get("/projects/?name=an+4").text) == [
        f"Plan {number}" for number in range(40, 45)
    ]
    assert "No matching projects." in visitor.get("/projects/?name=%25").text


def test_no_page_is_found_that_is_not_there(app, visitor, person):
    visitor.sign_in(person)
    add_projects(app, person, 1)
    for page in ("0", "-1", "2", "x", str(10**20)):
        assert visitor.get(f"/projects/?page={page}").status_code in (400, 404), page


def test_the_plan_is_a_part_of_the_account(visitor, person):
    visitor.sign_in(person)
    page = visitor.get("/account/plan").text
    assert 'href="/account/plan" aria-current="page"' in page
    assert 'href="/account/sessions"' in page
    assert 'href="/account/plan"' in visitor.get("/account").text


def test_emails_have_the_color_of_the_brand(app, visitor, person):
    visitor.submit("/reset", {"email": person})
    html = visitor.letters()[-1].get_body(("html",)).get_content()
    assert "background: #6d28d9" in html
"""
SHIPPED = (
    *("test_facade.py", "test_service.py", "account", "web/test_access_matrix.py"),
    *("web/test_brand.py", "web/test_components.py", "web/test_hostile.py"),
)
ADD = f"""
import os
os.environ["APP_ENV"] = "development"
from app import create_app
app = create_app()
from app.models import Project
from bulwark import db
from tests.conftest import add_person
from tests.support import find_user
add_person(app, "{EMAIL}")
with app.app_context():
    owner = find_user(app, "{EMAIL}").id
    for number in range(45):
        name = f"Renovation of the harbour, part {{number}}"
        db.session.add(Project(name=name, budget=1000 * number, owner_id=owner))
    db.session.commit()
"""


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "pages.md")
    with changing_its_own_files(service):
        yield service


@pytest.fixture
def visitor(team: Service) -> Iterator[Visitor]:
    """Return a visitor, without scripts, of the running service."""
    team.follow(BRAND, LIST, ACCOUNT)
    team.python(ADD)
    with (
        developed(team.folder, "My Service") as service,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield Visitor(browser, service)
        browser.close()


def test_a_team_builds_pages_and_every_check_passes(team: Service) -> None:
    team.follow(BRAND, LIST, ACCOUNT)
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(PROJECTS)
    team.run("bin/test", "-q", "-n0", *(f"tests/bulwark/{name}" for name in SHIPPED))


def test_a_color_that_nobody_can_read_is_refused(team: Service) -> None:
    style = team.folder / "app/static/app.css"
    style.write_text(style.read_text().replace("--brand: #0172ad", "--brand: #ffb000"))
    test = "tests/bulwark/web/test_brand.py"
    refusal = team.refusal("bin/test", "-q", "-n0", "--tb=line", test)
    assert "Choose a darker shade, such as #" in refusal


@pytest.mark.needs("chromium")
def test_the_components_suit_everybody(visitor: Visitor) -> None:
    page = visitor.page
    visitor.open("/")
    assert visitor.objections() == []
    visitor.sign_in(EMAIL)
    for path in ("/", "/projects/?page=2", "/projects/?name=none", "/account/plan"):
        visitor.open(path)
        assert visitor.objections() == []
    visitor.open("/projects/")
    page.get_by_role("button", name="Actions for").first.click()
    close = page.get_by_role("button", name="Close").first
    expect(close).to_be_visible()
    assert visitor.objections() == []
    page.keyboard.press("Escape")
    expect(close).to_be_hidden()

    page.set_viewport_size({"width": 360, "height": 800})
    row = page.get_by_role("row").nth(1)
    labels = row.evaluate(
        "(row) => [...row.cells].map((c) => getComputedStyle(c, '::before').content)"
    )
    assert labels == ['"Name"', '"Status"', '"Budget"', '"Actions"']
    page.set_viewport_size({"width": 1280, "height": 800})
    search = page.get_by_role("button", name="Search").bounding_box()
    assert search
    assert search["width"] < 200
    page.emulate_media(color_scheme="dark")
    clear = "rgba(0, 0, 0, 0)"
    expect(page.get_by_role("cell").first).to_have_css("background-color", clear)
