"""The Core Rule Set before the service: whom it refuses, whom not, what it logs."""

import json
import re
import time
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest

from tests.support.crs import ATTACKS, CRS_LOG, attack, drive, put_before
from tests.support.deployed import HOME, NAME
from tests.support.disks import installed
from tests.support.machine import NEEDS_MACHINE
from tests.support.public_server import LOG, PublicServer, PublicVisitor
from tests.support.servers import eventually
from tests.support.visitor import FORM

MEBIBYTE = 1024 * 1024
# A team's view that takes files, and what raises nginx's limit: docs/extend.md.
VIEWS = f"""

from bulwark import body_limit


@blueprint.post("/test/photos")
@csrf.exempt
@public
@limit("1000 per minute")
@body_limit(3 * {MEBIBYTE})
def add_photo() -> ResponseReturnValue:
    return {{"size": len(request.files["photo"].read()), **request.form}}
"""
LOCATION = f"""
location = /test/photos {{
    client_max_body_size 3m;
    proxy_pass http://{NAME};
}}
"""


pytestmark = NEEDS_MACHINE


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PublicServer]:
    with PublicServer(
        installed(tmp_path_factory, request.param), parts=["web"]
    ) as server:
        with server.path(f"{HOME}/current/app/views.py").open("a") as file:
            file.write(VIEWS)
        server.run("systemctl", "restart", f"{NAME}@{server.current}")
        server.write(f"{HOME}/current/app/nginx/photos.conf", LOCATION)
        server.certify()
        eventually(lambda: server.ask("/readyz").status == 200)
        yield server


def refused_by_nginx(server: PublicServer) -> list[str]:
    text = server.path(LOG).read_text(errors="replace")
    lines = [json.loads(line) for line in text.split("\n") if line]
    return [
        f"{line['method']} {line['path']}"
        for line in lines
        if line["status"] == "403" and not line["upstream_status"]
    ]


def test_people_are_not_refused_whatever_they_type(server: PublicServer) -> None:
    put_before(server, "block")
    server.path(LOG).write_text("")
    assert drive(server) > 300
    assert refused_by_nginx(server) == []


def test_attacks_are_refused(server: PublicServer) -> None:
    put_before(server, "block")
    statuses = {kind: response.status for kind, response in attack(server)}
    assert {kind: status for kind, status in statuses.items() if status != 403} == {}


def test_without_it_attacks_do_no_harm(server: PublicServer) -> None:
    put_before(server, "")
    for kind, response in attack(server):
        assert response.status in (200, 400, 404, 405), kind
        leaked = re.search(r"alert\(|root:|uid=|\bSQL|Traceback", response.body)
        assert not leaked, kind


def test_while_it_watches_it_refuses_nothing_and_logs_no_secret(
    server: PublicServer,
) -> None:
    put_before(server, "watch")
    secret = "' or 1=1 -- <script>${jndi:ldap://x/a}; cat /etc/passwd kept-to-myself"
    visitor, coded = PublicVisitor(server), quote(secret, safe="")
    for field in ("password", "new_password", "code", "csrf_token", "credential"):
        visitor.ask("/login", "POST", urlencode({field: secret}), Content_Type=FORM)
        body = json.dumps({field: secret})
        visitor.ask("/login", "POST", body, Content_Type="application/json")
    for header in ("Cookie", "Authorization", "X-CSRFToken"):
        visitor.ask("/", **{header: f"a={secret}"})
    for page in ("register", "reset", "change-email"):
        visitor.ask(f"/{page}/{coded}")
    assert visitor.ask("/?q=<script>alert(1)</script>").status == 200
    eventually(lambda: "<script>alert(1)" in server.path(CRS_LOG).read_text())
    logs = server.run("sh", "-c", "cat /root/crs.log /var/log/nginx/*.log")
    assert "kept-to-myself" not in logs
    assert "kept-to-myself" not in server.journal()
    assert server.run("stat", "-c", "%U %a", "/root") == "root 700\n"


# --- Large bodies ---------------------------------------------------------------------


def send(
    server: PublicServer, path: str, body: str, kind: str = FORM
) -> tuple[int, float]:
    """Send a body; return the status and how long that took."""
    visitor, begin = PublicVisitor(server), time.monotonic()
    status = visitor.ask(path, "POST", body, Content_Type=kind).status
    return status, time.monotonic() - begin


def upload(
    server: PublicServer, size: int, path: str = "/test/photos", **parts: str
) -> int:
    """Send a file, which may have another name, and a note."""
    name, note = parts.get("name", "a.jpg"), parts.get("note", "At the sea")
    field = "--limit\r\nContent-Disposition: form-data; name="
    body = (
        f'{field}"note"\r\n\r\n{note}\r\n'
        f'{field}"photo"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
        f"{'x' * size}\r\n--limit--\r\n"
    )
    return send(server, path, body, "multipart/form-data; boundary=limit")[0]


def test_a_view_that_declares_it_takes_larger_files(server: PublicServer) -> None:
    put_before(server, "block")
    assert upload(server, 1000) == 200
    assert upload(server, 2 * MEBIBYTE) == 200
    assert upload(server, 3 * MEBIBYTE) == 413
    assert upload(server, 2 * MEBIBYTE, path="/login") == 413
    assert "exited on signal" not in server.path("/var/log/nginx/error.log").read_text()


def test_what_comes_with_a_large_file_is_looked_at(server: PublicServer) -> None:
    put_before(server, "block")
    note = ATTACKS["SQL injection"].partition("=")[2]
    assert upload(server, 2 * MEBIBYTE, note=note) == 403
    assert upload(server, 2 * MEBIBYTE, name="shell.php") == 403


LONG = "'\"" * 400_000
LONG_BODIES = [
    (FORM, f"a={LONG}"),
    (FORM, "&".join(f"a{number}='" for number in range(100_000))),
    ("application/json", json.dumps({"a": LONG[:400_000]})),
    ("application/json", json.dumps(["'"] * 100_000)),
]


@pytest.mark.parametrize("mode", ["block", "watch"])
def test_text_holds_up_nobody_however_long_it_is(
    server: PublicServer, mode: str
) -> None:
    """What the rules take grows with the square of what they look at."""
    put_before(server, mode)
    _, usual = send(server, "/test/keep", "a=1")
    bound = 5 + 20 * usual  # on a busy machine all takes longer
    for kind, body in LONG_BODIES:
        status, seconds = send(server, "/test/keep", body, kind)
        assert status in ((413, 400) if mode == "block" else (200,))
        assert seconds < bound
    for parts in ({"note": LONG[:400_000]}, {"name": LONG[:100_000]}):
        begin = time.monotonic()
        answer = upload(server, 1000, **parts)
        assert answer in ((413, 400) if mode == "block" else (200, 400, 413))
        assert time.monotonic() < begin + bound


def test_text_of_thirty_thousand_characters_is_looked_at(server: PublicServer) -> None:
    put_before(server, "block")
    text = "The quick brown fox jumps over the lazy dog. " * 650
    assert upload(server, 1000, note=text) == 200
    assert upload(server, 1000, note=f"{text}<script>alert(1)</script>") == 403
    _, usual = send(server, "/test/keep", "a=1")
    status, seconds = send(server, "/test/keep", f"a={LONG[:30_000]}")
    assert status in (200, 403)
    assert seconds < 10 + 20 * usual
