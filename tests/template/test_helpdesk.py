"""The help desk in examples/, which is built from docs/ alone: all that it promises."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from copier import run_copy, run_update
from playwright.sync_api import expect, sync_playwright

from tests.conftest import ROOT, commit, git, move, run
from tests.support.chromium import ARGUMENTS, CHROMIUM, Visitor, developed
from tests.support.copies import tree
from tests.support.environments import lend_packages
from tests.support.fuzzing import attack
from tests.support.guide import Service
from tests.support.quick_copier import IN_PROCESSES
from tests.support.releases import HANDED_OVER, VERSIONS, released
from tests.support.servers import Postgres

EXAMPLE = ROOT / "examples/helpdesk"
NAME = "Help desk"
OWN = ("app/", "tests/app/")
CUSTOMER, AGENT = "zoe@acme.example", "ada@help.example"
ADD_CUSTOMER = f"""
from tests.app.helpers import add_customer
email = add_customer(app, "{CUSTOMER}", "Acme")
"""
ADD_TICKETS = f"""
from app import create_app
app = create_app()
{ADD_CUSTOMER}
from tests.app.helpers import add_ticket
from tests.conftest import add_person
add_person(app, "{AGENT}", "agent")
for number in range(25):
    add_ticket(app, email, f"The printer on floor {{number}} has no paper")
"""
PREFLIGHT = """
from app import create_app
answer = create_app().test_client().options(
    "/api/v1/tickets",
    base_url="https://localhost",
    headers={"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"},
)
print(answer.headers.get("Access-Control-Allow-Origin"))
"""
VIDEO = "https://www.youtube-nocookie.com/embed/jNQXAC9IVRw"
# What the base's own tests check of each route, model, permission and template.
SHIPPED = (
    *("database/test_migrations.py", "test_facade.py", "identity/test_signup.py"),
    *("web/test_access_matrix.py", "web/test_hostile.py", "web/test_brand.py"),
)
TESTS = ("tests/app", *(f"tests/bulwark/{name}" for name in SHIPPED))


@pytest.fixture(scope="module")
def desk(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Return a new service with the help desk, set up and committed."""
    folder = tmp_path_factory.mktemp("helpdesk") / "service"
    answers = yaml.safe_load((EXAMPLE / "answers.yml").read_text())
    run_copy(str(template), folder, answers, defaults=True, quiet=True, unsafe=True)
    lend_packages(folder, tmp_path_factory)
    run(ROOT / "bin/example", "helpdesk", folder, cwd=ROOT)
    run("bin/setup", cwd=folder)
    commit(folder)
    return Service(folder)


def drift(service: Path) -> set[str]:
    """Return the base's files that differ."""
    command = ("bin/drift", "--json")
    shown = json.loads(run(*command, cwd=service, env=os.environ | IN_PROCESSES))
    return {file["path"] for file in shown["files"]}


def own(service: Path) -> dict[str, tuple[bytes, bool]]:
    return {name: file for name, file in tree(service).items() if name.startswith(OWN)}


def test_it_edits_nothing_of_the_base(desk: Service) -> None:
    assert drift(desk.folder) == set()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["helpdesk", "/tmp"], "/tmp is not a service"),
        (["shop", "/tmp"], "a folder of examples/, such as helpdesk"),
        ([], "a folder of examples/, such as helpdesk"),
    ],
)
def test_an_example_needs_a_name_and_a_service(
    arguments: list[str], reason: str
) -> None:
    command = [str(ROOT / "bin/example"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert reason in done.stdout + done.stderr


@pytest.mark.timeout(1200)  # it runs the whole suite of a service
def test_every_check_is_green(desk: Service) -> None:
    # CI="": without a network, the audit is left out.
    desk.run("bin/ci", CI="")


@pytest.mark.needs("postgresql")
def test_its_tests_pass_on_postgresql(desk: Service, postgres: Postgres) -> None:
    url = postgres.database()
    desk.run("bin/flask", "prepare", APP_DATABASE_URL=url)
    desk.run("bin/test", "-q", "-n0", *TESTS, APP_DATABASE_URL=url)


def test_schemathesis_finds_nothing(desk: Service, tmp_path: Path) -> None:
    permissions = ("tickets:read", "tickets:write")
    url = f"sqlite:///{tmp_path}/desk.db"
    attack(desk, *permissions, add=ADD_CUSTOMER, APP_DATABASE_URL=url)


def test_pages_of_another_site_call_the_api_once_it_is_listed(desk: Service) -> None:
    site = "https://shop.example"
    assert desk.python(PREFLIGHT).endswith("None")
    assert desk.python(PREFLIGHT, APP_CORS_ORIGINS=site).endswith(site)


@pytest.fixture(scope="module")
def visit(desk: Service) -> Iterator[Callable[[], Visitor]]:
    """Return a function that opens a browser, in a help desk with tickets."""
    desk.python(ADD_TICKETS, APP_ENV="development")
    with developed(desk.folder, NAME) as service, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield lambda: Visitor(browser, service)
        browser.close()


@pytest.mark.needs("chromium")
def test_its_pages_suit_everybody(visit: Callable[[], Visitor]) -> None:
    anyone, customer, agent = visit(), visit(), visit()
    for path in ("/", "/terms", "/register"):
        anyone.open(path)
        assert anyone.objections() == []
    customer.sign_in(CUSTOMER)
    for path in ("/tickets/?page=2", "/tickets/?subject=ink", "/tickets/new"):
        customer.open(path)
        assert customer.objections() == []
    agent.sign_in(AGENT)
    for path in ("/", "/tickets/", "/organizations/", "/organizations/1"):
        agent.open(path)
        assert agent.objections() == []


@pytest.mark.needs("chromium")
def test_the_tour_shows_a_video(visit: Callable[[], Visitor]) -> None:
    visitor = visit()
    page = "<!doctype html><html lang=en><title>Video</title><main><h1>Tour</h1></main>"
    headers = {"Cross-Origin-Embedder-Policy": "require-corp"}
    visitor.page.route(
        "https://www.youtube-nocookie.com/**",
        lambda route: route.fulfill(
            body=page, content_type="text/html", headers=headers
        ),
    )
    visitor.open("/tour")
    expect(visitor.page.frame_locator("iframe").locator("h1")).to_have_text("Tour")
    assert set(visitor.objections()) == {f"asked a foreign host: {VIDEO}"}


@pytest.mark.needs("chromium")
def test_a_ticket_is_written_answered_and_exported(
    visit: Callable[[], Visitor],
) -> None:
    customer, agent = visit(), visit()
    customer.sign_in(CUSTOMER)
    customer.open("/tickets/new")
    files = {"name": "log.txt", "mimeType": "text/plain", "buffer": b"No ink."}
    customer.page.get_by_label("Attachments").set_input_files(files)  # type: ignore[arg-type]
    ticket = {"Subject": "No ink", "Question": "* cyan\n* **magenta**"}
    customer.send("Send ticket", ticket)
    customer.reads("We received your ticket.")
    expect(customer.page.locator("main li strong")).to_have_text("magenta")
    address = customer.page.url
    agent.sign_in(AGENT)
    agent.open(address)
    agent.send("Add comment", {"Comment": "I'll bring some."})
    agent.reads("Your comment was added.")
    assert agent.objections() == []
    customer.open_message(CUSTOMER, "Comment on ticket")
    customer.reads("I'll bring some.")
    customer.open("/exports/")
    assert customer.objections() == []
    customer.press("Export tickets")
    link = customer.page.get_by_role("link", name="Download tickets.csv")
    expect(link).to_be_visible()
    assert customer.objections() == []
    with customer.page.expect_download() as download:
        link.click()
    assert "No ink" in download.value.path().read_text()


def test_it_takes_every_release(
    desk: Service,
    template: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    service = Path(shutil.copytree(desk.folder, tmp_path / "service", symlinks=True))
    move(service, str(released(template, tmp_path_factory)))
    commit(service)
    before = own(service)
    for version in VERSIONS[1:]:
        run_update(
            service,
            vcs_ref=version,
            defaults=True,
            overwrite=True,
            quiet=True,
            unsafe=True,
        )
        assert git(service, "ls-files", "--unmerged") == ""
        commit(service)
    assert own(service) == before
    assert drift(service) == {HANDED_OVER}
    run("bin/setup", cwd=service)
    run("bin/test", "-q", "-n0", *TESTS, cwd=service)
