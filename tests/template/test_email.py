"""docs/email.md, done to a new service as a reader would; its emails in a browser."""

import os
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.support.chromium import ARGUMENTS, CHROMIUM, Visitor
from tests.support.chromium import Service as Running
from tests.support.guide import Service, changing_its_own_files, copy_of
from tests.support.servers import PATIENCE, free_port, wait_for_port

DIGESTS = """
from app import digests


def test_who_unsubscribed_gets_no_digest(app, visitor, person, run_jobs):
    with app.app_context():
        digests.send_digests.function()
    run_jobs()
    (letter,) = visitor.letters()
    assert "Open your account:\\n\\nhttps://localhost/account" in letter.get_body(
        ("plain",)
    ).get_content().replace("\\r\\n", "\\n")
    url = letter["List-Unsubscribe"].strip("<>").removeprefix("https://localhost")
    click = {"List-Unsubscribe": "One-Click"}
    assert app.test_client().post(url, data=click).status_code == 200
    with app.app_context():
        digests.send_digests.function()
    run_jobs()
    assert len(visitor.letters()) == 1
"""
SHIPPED = ("mail", "test_facade.py", "test_names.py", "web/test_access.py")
SEND = """
from app import create_app
from app.models import User
from bulwark.database import db
from bulwark.mail import outbox, send, send_templated

with create_app().app_context():
    user = User(email="zoe@example.org")
    numbers = {"<script>alert(1)</script>": 3, "日本語": 2}
    send_templated("Your week", user.email, "emails/digest.html",
                   unsubscribe="weekly-digest", user=user, numbers=numbers)
    send("A link", user.email, "Open this:\\n\\nhttps://localhost/x\\n\\nBye")
    db.session.commit()
    outbox.deliver_due()
"""
# What an email of a team, or of an attacker, could try in the frame.
HOSTILE = """\
From: a@example.org
To: zoe@example.org
Subject: Hostile
Date: Mon, 30 Nov 2026 20:00:00 +0000
MIME-Version: 1.0
Content-Type: text/html; charset=utf-8

<!doctype html><html><head><title>x</title></head><body>
<script>top.document.title = "taken"; alert(1)</script>
<img src="http://127.0.0.1:{port}/pixel.png" onerror="alert(2)">
<img src="/static/favicon.svg" onload="alert(3)">
<form action="/logout" method="post"><button id="send">Send</button></form>
<iframe src="/account"></iframe>
<a id="top" href="https://localhost/" target="_top">up</a>
<p id="end" style="font-size: 30px">end</p>
</body></html>
"""


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "email.md")
    with changing_its_own_files(service):
        yield service


@pytest.fixture
def tracker() -> Iterator[socket.socket]:
    """Return a server whose owner wants to know who reads an email."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def running(team: Service, tracker: socket.socket) -> Iterator[Running]:
    """Run the service in development, with emails in its mailbox."""
    team.follow(*range(1, len(team.examples)))
    team.run(".venv/bin/python", "-c", SEND, APP_ENV="development")
    (mailbox,) = team.folder.glob("instance/mail*")
    hostile = HOSTILE.replace("{port}", str(tracker.getsockname()[1]))
    (mailbox / "20990101-000000-000000.eml").write_text(hostile)
    port = free_port()
    address = f"https://localhost:{port}"
    with (team.folder / "instance/dev.log").open("wb") as log:
        process = subprocess.Popen(
            ["bin/dev", "--port", str(port)],
            cwd=team.folder,
            env=os.environ | {"APP_BASE_URL": address},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for_port(port, process)
        answers = tomllib.loads((team.folder / "service.toml").read_text())
        yield Running(team.folder, address, answers["name"])
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_a_team_sends_a_digest_and_every_check_passes(team: Service) -> None:
    team.follow(*range(1, len(team.examples)))
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(DIGESTS)
    team.run("bin/test", "-q", "-n0", *(f"tests/bulwark/{name}" for name in SHIPPED))


@pytest.mark.needs("chromium")
def test_the_mailbox_shows_html_that_can_do_nothing(
    running: Running, tracker: socket.socket
) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        visitor = Visitor(browser, running)
        page = visitor.page
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))

        for subject in ("Your week", "A link"):
            visitor.open_message("zoe@example.org", subject)
            frame = page.frame_locator("iframe")
            frame.locator("header").wait_for()
            assert frame.locator("script").count() == 0
            assert visitor.objections() == []
            assert visitor.complaints == []
        background = "e => getComputedStyle(e).backgroundColor"
        button = frame.get_by_role("link", name="Open the link")
        assert button.evaluate(background) == "rgb(1, 114, 173)"

        visitor.open_message("zoe@example.org", "Hostile")
        frame = page.frame_locator("iframe")
        frame.locator("#end").wait_for()
        title = page.title()
        assert "Hostile" in title
        frame.locator("#send").click()
        frame.locator("#top").click()
        page.wait_for_timeout(500)
        assert page.title() == title
        assert page.url.startswith(f"{running.address}/dev/mailbox/")
        assert dialogs == []
        with pytest.raises(BlockingIOError):  # nobody connected
            tracker.accept()
        browser.close()
