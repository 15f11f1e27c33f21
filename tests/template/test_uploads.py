"""docs/uploads.md, done to a new service as a reader would."""

import http.client
import os
import re
import socket
import ssl
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.buckets import folder_of_rclone
from tests.support.guide import Service, changing_its_own_files, copy_of
from tests.support.servers import Nginx

DOCUMENTS = """
import re

from tests.conftest import add_person

PDF = b"%PDF-1.7\\n1 0 obj\\n<<>>\\nendobj\\ntrailer\\n<<>>\\n%%EOF\\n"
PAGE = b"<script>alert()</script>"


def send(visitor, name, content):
    part = f'Content-Disposition: form-data; name="documents"; filename="{name}"'
    head = f"--x\\r\\n{part}\\r\\n\\r\\n"
    return visitor.client.post(
        "/documents/",
        data=head.encode() + content + b"\\r\\n--x--\\r\\n",
        content_type="multipart/form-data; boundary=x",
        headers={
            "X-CSRFToken": visitor.csrf_token("/documents/"),
            "Referer": "https://localhost/documents/",
        },
    )


def test_users_keep_documents(app, visitor, other_visitor, person):
    visitor.sign_in(person)
    other_visitor.sign_in(add_person(app, "ada@example.org"))
    assert send(visitor, "../plan.pdf", PDF + bytes(9_900_000)).status_code == 302
    page = visitor.get("/documents/").text
    assert "plan.pdf" in page
    (path,) = re.findall('href="(/documents/[0-9]+)"', page)
    answer = visitor.get(path, buffered=True)
    assert answer.data.startswith(PDF)
    assert answer.headers["Content-Disposition"] == "attachment; filename=plan.pdf"
    assert other_visitor.get(path).status_code == 404
    assert other_visitor.submit(f"{path}/delete", {}).status_code == 404
    delete = {"csrf_token": visitor.csrf_token("/documents/")}
    referrer = {"Referer": "https://localhost/documents/"}
    visitor.client.post(f"{path}/delete", data=delete, headers=referrer)
    assert "no documents" in visitor.get("/documents/").text


def test_what_is_not_accepted_is_refused(visitor, person, monkeypatch):
    visitor.sign_in(person)
    assert send(visitor, "page.html", PAGE).status_code == 415
    assert send(visitor, "photo.png", PAGE).status_code == 415
    assert send(visitor, "plan.txt", b"x" * 10_000_001).status_code == 413
    assert send(visitor, "plan.txt", b"x" * 12_000_001).status_code == 413
    monkeypatch.setattr("app.documents.QUOTA", 10)
    assert send(visitor, "plan.txt", b"x" * 11).status_code == 413
    assert "no documents" in visitor.get("/documents/").text
"""
# What the base's own tests check of each route, model and setting of a service.
SHIPPED = (
    *("uploads", "test_facade.py", "web/test_body_limits.py", "web/test_access.py"),
    *("web/test_access_matrix.py", "web/test_hostile.py", "database"),
    "ops/backups/test_files.py",
)


@pytest.fixture
def team(ready: Path, tmp_path: Path) -> Iterator[Service]:
    """Return a service whose team follows the guide, and changes its own files only."""
    service = copy_of(ready, tmp_path / "service", "uploads.md")
    with changing_its_own_files(service):
        yield service


def test_a_team_keeps_documents_and_every_check_passes(team: Service) -> None:
    team.follow(*range(1, len(team.examples)))
    team.is_fully_migrated()
    for check in ("ruff format --check", "ruff check", "mypy", "lint-imports"):
        team.run("sh", "-c", f".venv/bin/{check}")
    team.proves(DOCUMENTS)
    shipped = [f"tests/bulwark/{name}" for name in SHIPPED]
    path = f"{folder_of_rclone()}:{os.environ['PATH']}"
    output = team.run("bin/test", "-q", "-rs", "-n0", *shipped, PATH=path)
    assert not re.search("needs (boto3|rclone|Pillow)", output)


def test_a_service_without_uploads_loads_none_of_their_packages(team: Service) -> None:
    shown = "import sys, wsgi; print(*sys.modules)"
    loaded = set(team.python(shown).split())
    assert not loaded & {"PIL", "boto3", "markdown_it", "nh3", "puremagic"}


@pytest.mark.needs("nginx")
def test_the_proxy_allows_what_the_views_do(team: Service, tmp_path: Path) -> None:
    team.follow(*range(1, len(team.examples)))
    team.run("bin/flask", "collect", "public")  # the pages of nginx's own errors
    answers = tomllib.loads((team.folder / "service.toml").read_text())
    domain, slug = answers["domain"], answers["slug"]
    nginx = Nginx(team.folder, domain, slug, tmp_path / "nginx")
    with nginx.running():

        def status(path: str, size: int) -> int:
            """Return the answer to a request whose body is announced, and not sent."""
            trust = ssl.create_default_context(cafile=str(nginx.certificate))
            address = ("127.0.0.1", nginx.ports[443])
            with (
                socket.create_connection(address) as plain,
                trust.wrap_socket(plain, server_hostname=domain) as stream,
            ):
                connection = http.client.HTTPConnection(domain)
                connection.sock = stream
                body = bytes(size if size <= 12_000_000 else 0)
                headers = {"Content-Length": str(size)}
                connection.request("POST", path, body, headers)
                return connection.getresponse().status

        # The service is not running, so what nginx lets through is 503.
        assert status("/documents/", 12_000_000) == 503
        assert status("/documents/", 12_000_001) == 413
        assert status("/documents/5/delete", 1_048_577) == 413
