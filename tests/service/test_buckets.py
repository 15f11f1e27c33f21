"""Uploads in a bucket of a real server over TLS, as docs/uploads.md sets it up."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.support.buckets import SECRET, BucketServer
from tests.support.clients import Browser, Service
from tests.support.guide import copy_of
from tests.support.servers import eventually
from tests.support.visitor import DOMAIN, Response

MODEL, PAGES, BUCKET = 1, 2, 5
CONTENT = "A plan. " * 500_000
PATIENCE = 60  # seconds


class Site(NamedTuple):
    """A service in production, and the server of its bucket."""

    service: Service
    bucket: BucketServer

    def flask(
        self, *arguments: str | Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        folder = self.service.folder / "service"
        return subprocess.run(
            [folder / ".venv/bin/flask", "--app", "wsgi", *arguments],
            cwd=folder,
            env=self.service.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def stored(self) -> list[Path]:
        return [path for path in self.bucket.files.iterdir() if path.is_file()]


@pytest.fixture(scope="module")
def site(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("buckets")
    team = copy_of(ready, folder / "service", "uploads.md")
    team.follow(MODEL, PAGES, BUCKET)
    answers = team.folder / "service.toml"
    domain = tomllib.loads(text := answers.read_text())["domain"]
    answers.write_text(text.replace(f'"{domain}"', f'"{DOMAIN}"'))
    service = Service(folder, None)
    with BucketServer(folder).running() as bucket:
        service.environment["AWS_CA_BUNDLE"] = str(bucket.authority)
        with (team.folder / ".env.production").open("a") as file:
            file.write(f"APP_UPLOADS_URL={bucket.url}\n")
        site = Site(service, bucket)
        prepared = site.flask("prepare")
        assert prepared.returncode == 0, prepared.stderr
        with (
            service.mailbox.running(),
            service.command("gunicorn", f"--bind=unix:{service.socket}", log="web"),
            service.command("flask", "--app", "wsgi", "worker", log="worker"),
        ):
            eventually(service.socket.exists)
            yield site


@pytest.fixture(scope="module")
def member(site: Site) -> Browser:
    return site.service.person("member@bulwark-tests.net")


def send(browser: Browser, name: str, content: str) -> Response:
    browser.open_form("/documents/")
    parts = {'name="csrf_token"': browser.token}
    parts[f'name="documents"; filename="{name}"'] = content
    body = "".join(
        f"--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n"
        for head, value in parts.items()
    )
    kind = "multipart/form-data; boundary=x"
    return browser.ask("/documents/", "POST", f"{body}--x--\r\n", Content_Type=kind)


def download(browser: Browser, name: str) -> Response:
    page = browser.ask("/documents/").body
    (path,) = re.findall(f'href="(/documents/[0-9]+)">{name}<', page)
    return browser.ask(path)


def test_a_document_is_in_the_bucket_and_comes_back(
    site: Site, member: Browser
) -> None:
    assert send(member, "plan.txt", CONTENT).status == 302
    (file,) = site.stored()
    assert file.read_text() == CONTENT
    answer = download(member, "plan.txt")
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.header("Content-Disposition") == "attachment; filename=plan.txt"
    folder = site.service.folder / "service/instance/uploads"
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_an_outage_is_503_and_ends_with_it(site: Site, member: Browser) -> None:
    assert send(member, "before.txt", "before").status == 302
    with site.bucket.away():
        answers = [send(member, "x.txt", "x"), download(member, "before.txt")]
        assert member.ask("/documents/").status == 200
        health = site.flask("health")
    for answer in answers:
        assert answer.status == 503
        assert int(answer.header("Retry-After") or 0) > 0
        assert "Service temporarily unavailable" in answer.body
    assert re.search("^uploads .*unreachable", health.stdout, re.MULTILINE)
    assert download(member, "before.txt").body == "before"
    assert re.search("^uploads +ok", site.flask("health").stdout, re.MULTILINE)
    log = (site.service.folder / "web").read_text()
    assert '"event": "uploads_unavailable"' in log
    assert SECRET not in log
    assert site.service.failures() == []


def test_a_server_that_does_not_prove_who_it_is_gets_no_file(site: Site) -> None:
    other = site.service.folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    health = site.flask("health", AWS_CA_BUNDLE=str(other))
    assert re.search("^uploads .*SSLError", health.stdout, re.MULTILINE), health


def test_a_backup_has_the_files_and_a_restore_puts_them_back(
    site: Site, member: Browser
) -> None:
    assert send(member, "kept.txt", CONTENT).status == 302
    before = {path.name: path.read_bytes() for path in site.stored()}
    folder = site.service.folder / "backups"
    made = site.flask("backup", folder)
    assert made.returncode == 0, made.stderr
    assert f"{len(before)} uploaded files" in made.stdout
    (backup,) = folder.iterdir()
    for path in site.stored():
        path.unlink()
    assert download(member, "kept.txt").status == 404
    other = site.service.folder / "restored.db"
    database = {"APP_DATABASE_URL": f"sqlite:///{other}"}
    restored = site.flask("restore", backup, **database)
    assert restored.returncode == 0, restored.stderr
    assert {path.name: path.read_bytes() for path in site.stored()} == before
    assert download(member, "kept.txt").body == CONTENT
