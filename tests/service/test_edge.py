"""A service as it is deployed: nginx, gunicorn, worker, certificate, SMTP, all real."""

import json
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from copier import run_copy

from tests.conftest import Make, run
from tests.support.edge import ANSWERS, ENVIRONMENT, SLUG, EdgeVisitor, Site, collect
from tests.support.guide import NGINX
from tests.support.guide import Service as Team
from tests.support.servers import PATIENCE, Nginx, eventually, running
from tests.support.visitor import (
    ADDRESS,
    DOMAIN,
    PASSWORD,
    SECURITY_HEADERS,
    Response,
    exchange,
)

# The team's half: a page that tells what reached it, one that fails, nginx locations.
VIEWS = f"""

@blueprint.get("/test/seen")
@public
def seen() -> ResponseReturnValue:
    from flask import request

    told = {{"address": request.remote_addr, "secure": request.is_secure}}
    return told | {{"host": request.host, "headers": dict(request.headers)}}


@blueprint.get("/test/broken")
@public
def broken() -> ResponseReturnValue:
    password = "{PASSWORD}"
    raise RuntimeError(f"It has {{len(password)}} letters")
"""
LOCATIONS = """
location /test/files/ {
    alias %(service)s/app/static/;
}
location = /test/proxied {
    client_max_body_size 2m;
    proxy_pass http://%(slug)s/test/seen;
}
location = /test/own-header {
    add_header X-Own yes always;
    include %(slug)s/headers.conf;
    return 204;
}
"""


pytestmark = pytest.mark.needs("nginx")


@pytest.fixture(scope="session")
def service(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a service as a server has it, with what a team may add."""
    folder = tmp_path_factory.mktemp("srv") / SLUG
    run_copy(str(template), folder, ANSWERS, defaults=True, unsafe=True, quiet=True)
    (folder / ".env").unlink()
    run(os.environ.get("UV", "uv"), "sync", "--quiet", "--no-dev", cwd=folder)
    with (folder / "app/views.py").open("a") as file:
        file.write(VIEWS)
    Team(folder).follow(NGINX)
    collect(folder)
    text = LOCATIONS % {"service": folder, "slug": SLUG}
    (folder / "app/nginx/test.conf").write_text(text)
    return folder


@pytest.fixture(scope="session")
def site(service: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(service, tmp_path_factory.mktemp("site")).running() as site:
        yield site


@pytest.fixture
def visitor(site: Site) -> EdgeVisitor:
    return EdgeVisitor(site.nginx)


class Member(NamedTuple):
    visitor: EdgeVisitor
    link: str


@pytest.fixture(scope="session")
def member(site: Site) -> Member:
    """Return somebody who signed up with the link in the mail, and signed in."""
    visitor = EdgeVisitor(site.nginx)
    assert visitor.fill_in("/register", email=ADDRESS).status == 200
    link = eventually(lambda: site.mailbox.link_to(ADDRESS))
    assert visitor.fill_in(link, password=PASSWORD).status == 302
    visitor.fill_in("/login", email=ADDRESS, password=PASSWORD)
    assert visitor.ask("/account").status == 200
    return Member(visitor, link)


# --- Which requests reach the service -------------------------------------------------


def test_http_leads_to_https(visitor: EdgeVisitor) -> None:
    answer = visitor.ask("/prices?page=2", port=80)
    assert answer.status == 308
    assert answer.header("Location") == f"https://{DOMAIN}/prices?page=2"
    # RFC 6797, 7.2: never over a connection that somebody may have tampered with.
    assert answer.count_security().keys() == SECURITY_HEADERS - {
        "strict-transport-security"
    }


def test_certbot_can_show_that_the_domain_is_ours(
    site: Site, visitor: EdgeVisitor
) -> None:
    (site.nginx.folder / "www/.well-known/acme-challenge/token").write_text("proof")
    answer = visitor.ask("/.well-known/acme-challenge/token", port=80)
    assert (answer.status, answer.body) == (200, "proof")


@pytest.mark.parametrize("host", ["evil.example", f"www.{DOMAIN}", "127.0.0.1"])
def test_an_unknown_host_gets_no_answer_without_tls(
    visitor: EdgeVisitor, host: str
) -> None:
    assert visitor.send_lines("GET / HTTP/1.1", f"Host: {host}", port=80) == b""


@pytest.mark.parametrize("name", ["evil.example", f"www.{DOMAIN}", None])
def test_an_unknown_name_gets_no_certificate(
    visitor: EdgeVisitor, name: str | None
) -> None:
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        visitor.connect(name=name)


def test_a_host_other_than_the_certificates_is_misdirected(
    visitor: EdgeVisitor,
) -> None:
    assert visitor.ask("/", Host="evil.example").status == 421


LIES: list[dict[str, str]] = [
    {"X_Forwarded_Host": "evil.example"},
    {"X_Forwarded_For": "203.0.113.9", "X_Real_IP": "203.0.113.9"},
    {"X_Forwarded_Proto": "http", "X_Forwarded_Port": "81", "X_Forwarded_Prefix": "/x"},
    {"Forwarded": "for=203.0.113.9;host=evil.example;proto=http"},
    {"X_Original_URL": "/account", "X_Rewrite_URL": "/account"},
]


@pytest.mark.parametrize("lie", LIES)
def test_a_redirect_never_leads_to_a_host_that_a_visitor_names(
    visitor: EdgeVisitor, lie: dict[str, str]
) -> None:
    for port in (80, 443):
        location = visitor.ask("/account", port=port, **lie).header("Location")
        assert location
        assert location.startswith(("/login", f"https://{DOMAIN}/"))
        assert "evil" not in location


def test_a_target_with_another_host_is_not_served(visitor: EdgeVisitor) -> None:
    lines = (
        "GET http://evil.example/ HTTP/1.1",
        f"Host: {DOMAIN}",
        "Connection: close",
    )
    assert visitor.send_lines(*lines, port=80) == b""
    said = visitor.send_lines(*lines)
    assert said.startswith(b"HTTP/1.1 421")
    assert b"evil" not in said


@pytest.mark.parametrize("lie", LIES)
def test_the_service_sees_who_really_asks(
    visitor: EdgeVisitor, lie: dict[str, str]
) -> None:
    seen = json.loads(visitor.ask("/test/seen", **lie).body)
    assert (seen["address"], seen["secure"]) == ("127.0.0.1", True)
    assert seen["host"] == DOMAIN
    assert "203.0.113.9" not in json.dumps(seen)
    assert "evil" not in json.dumps(seen)


def test_headers_that_another_name_could_stand_for_are_dropped(
    visitor: EdgeVisitor,
) -> None:
    for name in ("Proxy", "Script_Name", "Path-Info", "X_Forwarded_For"):
        line = f"{name}: /evil"
        host = (f"Host: {DOMAIN}", "Connection: close")
        said = visitor.send_lines("GET /test/seen HTTP/1.1", *host, line)
        assert said.startswith(b"HTTP/1.1 200")
        assert (b"/evil" in said) == (name == "Path-Info"), "a header like any other"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_echo_or_tunnel_are_refused(
    visitor: EdgeVisitor, method: str
) -> None:
    assert visitor.ask("/", method).status in (400, 405)


def test_a_body_may_have_one_mebibyte(visitor: EdgeVisitor) -> None:
    assert visitor.ask("/", "PUT", b"x" * 1024 * 1024).status != 413
    assert visitor.ask("/", "PUT", b"x" * (1024 * 1024 + 1)).status == 413


def test_tls_is_1_2_or_1_3_and_speaks_http_2(visitor: EdgeVisitor) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        stream = visitor.connect(minimum_version=version, maximum_version=version)
        with stream:
            assert isinstance(stream, ssl.SSLSocket)
            assert stream.selected_alpn_protocol() == "h2"
            assert stream.version() == version.name.replace("_", ".")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_older_tls_is_refused(site: Site, version: str) -> None:
    address = f"127.0.0.1:{site.nginx.ports[443]}"
    said = subprocess.run(
        [
            *("openssl", "s_client", version, "-cipher", "ALL:@SECLEVEL=0"),
            *("-servername", DOMAIN, "-connect", address),
        ],
        input=b"",
        capture_output=True,
        check=False,
    )
    assert b"alert protocol version" in said.stderr


# --- What comes back ------------------------------------------------------------------

ANSWERED: dict[str, tuple[int, dict[str, Any]]] = {
    "a page": (200, {"target": "/"}),
    "JSON": (200, {"target": "/healthz"}),
    "a style sheet": (200, {"target": "/static/app.css"}),
    "a redirect": (302, {"target": "/account"}),
    "nothing there": (404, {"target": "/nothing"}),
    "a form without a token": (400, {"target": "/login", "method": "POST", "body": ""}),
    "a wrong method": (405, {"target": "/healthz", "method": "DELETE"}),
    "a fault": (500, {"target": "/test/broken"}),
    "TRACE, by nginx": (405, {"target": "/", "method": "TRACE"}),
    "too large, by nginx": (
        413,
        {"target": "/", "method": "PUT", "body": b"x" * 2_000_000},
    ),
    "too many headers, by gunicorn": (
        431,
        {"target": "/", **{f"X_{n}": "x" for n in range(70)}},
    ),
    "a header of 20 kB, by nginx": (400, {"target": "/", "X_Long": "x" * 20_000}),
    "the team's text": (200, {"target": "/robots.txt"}),
    "the team's file": (200, {"target": "/test/files/app.css"}),
    "the team's file, missing": (404, {"target": "/test/files/none"}),
    "the team's proxied location": (200, {"target": "/test/proxied"}),
    "the team's location with a header": (204, {"target": "/test/own-header"}),
}


@pytest.mark.parametrize("what", ANSWERED)
def test_every_answer_carries_each_security_header_once(
    visitor: EdgeVisitor, what: str
) -> None:
    status, request = ANSWERED[what]
    answer = visitor.ask(**request)
    assert answer.status == status, answer.body
    assert answer.count_security() == Counter(SECURITY_HEADERS)


@pytest.mark.parametrize("what", ANSWERED)
def test_no_answer_names_a_version_or_what_is_behind(
    visitor: EdgeVisitor, what: str
) -> None:
    answer = visitor.ask(**ANSWERED[what][1])
    assert answer.header("Server") == "nginx"
    assert answer.header("X-Powered-By") is None
    said = str(answer.headers).lower() + answer.body.lower()
    for word in ("nginx/", "gunicorn", "python/", "werkzeug", "traceback", PASSWORD):
        assert word not in said


def test_nginx_says_the_same_as_the_service(visitor: EdgeVisitor) -> None:
    by_nginx, by_service = (visitor.ask(p).security for p in ("/robots.txt", "/"))
    for header in ("content-security-policy", "x-request-id"):
        by_nginx.pop(header)
        by_service.pop(header)
    assert by_nginx == by_service


def test_development_has_the_policy_of_production(
    site: Site, visitor: EdgeVisitor
) -> None:
    ask = """
import json
from wsgi import app
answer = app.test_client().get("/login", base_url="https://localhost:8443")
print(json.dumps(list(answer.headers)))
"""
    settings = {"APP_ENV": "development", "ENV_FILE": str(site.settings)}
    python = site.service / ".venv/bin/python"
    said = run(python, "-c", ask, cwd=site.service, env=ENVIRONMENT | settings)
    headers = Message()
    for name, value in json.loads(said.splitlines()[-1]):
        headers[name] = value
    here = Response(200, headers, "").security
    there = visitor.ask("/login").security
    # Browsers apply HSTS to every port of localhost.
    assert here.keys() == there.keys() - {"strict-transport-security"}
    differ = {name for name in here if here[name] != there[name]}
    assert differ == {"content-security-policy", "x-request-id"}
    nonce = re.compile(r"'nonce-[^']+'")
    policies = [nonce.sub("", a["content-security-policy"]) for a in (here, there)]
    assert policies[0] == policies[1]


def test_a_page_is_never_compressed(visitor: EdgeVisitor) -> None:
    assert visitor.ask("/", Accept_Encoding="gzip").header("Content-Encoding") is None


def test_cookies_are_bound_to_the_host_and_out_of_reach(visitor: EdgeVisitor) -> None:
    cookies = visitor.ask("/login").headers.get_all("Set-Cookie", [])
    assert cookies
    for cookie in cookies:
        name, *attributes = re.split(r"; ?", cookie)
        assert name.startswith("__Host-")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(attributes)
        assert not [a for a in attributes if a.startswith("Domain")]


# --- When the service is away ---------------------------------------------------------


@pytest.fixture(scope="session")
def abandoned(
    service: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    """Return nginx before a service that does not run."""
    folder = tmp_path_factory.mktemp("abandoned") / "nginx"
    with Nginx(service, DOMAIN, SLUG, folder).running() as nginx:
        yield nginx


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/login", "/test/proxied"])
def test_an_absent_service_is_excused(abandoned: Nginx, method: str, path: str) -> None:
    answer = EdgeVisitor(abandoned).ask(path, method)
    assert answer.status == 503
    assert answer.header("Retry-After") == "5"
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    assert "back in a moment" in answer.body
    assert answer.count_security() == Counter(SECURITY_HEADERS)


def test_people_see_that_the_team_is_at_work(site: Site, visitor: EdgeVisitor) -> None:
    style = visitor.ask("/static/app.css").body
    site.nginx.maintenance.touch()
    try:
        answer = eventually(
            lambda: a if (a := visitor.ask("/")).status == 503 else None
        )
        assert "back in a moment" in answer.body
        assert answer.header("Retry-After") == "5"
        assert answer.count_security() == Counter(SECURITY_HEADERS)
        assert visitor.ask("/test/proxied").status == 503
        assert visitor.ask("/static/app.css").body == style
    finally:
        site.nginx.maintenance.unlink()
    assert visitor.ask("/").status == 200


def test_a_location_that_nginx_refuses_is_not_loaded(
    service: Path, tmp_path: Path
) -> None:
    nginx = Nginx(service, DOMAIN, SLUG, tmp_path / "nginx")
    own = nginx.service / "app/nginx/broken.conf"
    with nginx.running():
        own.write_text("location /broken { retrun 204; }")
        done = nginx.apply()
        assert done.returncode == 1
        assert 'unknown directive "retrun"' in done.stderr
        assert "still serves the previous one" in done.stderr
        # Who restarts nginx gets what was checked last, not what was refused.
        run("nginx", "-e", "stderr", "-t", "-c", nginx.config, cwd=tmp_path)
        own.write_text("location /broken { return 204; }")
        done = nginx.apply()
        assert done.returncode == 0, done.stderr
        visitor = EdgeVisitor(nginx)
        eventually(lambda: visitor.ask("/broken").status == 204)


def test_an_absent_service_leaks_no_token_into_logs(abandoned: Nginx) -> None:
    token = "WyI3YWZkYTE4ZGI5OTk0ZmU0YmRm.Xy"
    for target in (f"/reset/{token}", f"/?token={token}", f"/users/{ADDRESS}"):
        assert EdgeVisitor(abandoned).ask(target).status == 503

    def logged() -> bool:
        paths = {line["path"] for line in logged_requests(abandoned)}
        return paths >= {"/reset/...", "/", "/users/..."}

    assert eventually(logged)
    lines = logged_requests(abandoned)
    assert all(line["upstream_status"] == "502" for line in lines)
    for log in abandoned.logs():
        assert token not in log.read_text()
        assert ADDRESS not in log.read_text()


def logged_requests(nginx: Nginx) -> list[dict[str, Any]]:
    return [json.loads(line) for line in nginx.access_log.read_text().splitlines()]


# --- Logs -----------------------------------------------------------------------------


def test_one_request_id_joins_all_logs(site: Site, visitor: EdgeVisitor) -> None:
    claimed = "a" * 32
    answer = visitor.ask("/test/seen?token=secret", X_Request_ID=claimed)
    request_id = answer.header("X-Request-ID")
    assert request_id != claimed

    def joined(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [line for line in lines if line.get("request_id") == request_id]

    (by_nginx,) = eventually(lambda: joined(logged_requests(site.nginx)))
    (by_service,) = eventually(lambda: joined(site.lines("web")))
    assert (by_nginx["method"], by_nginx["path"]) == ("GET", "/test/seen")
    assert (by_nginx["remote_addr"], by_nginx["status"]) == ("127.0.0.1", "200")
    assert (by_service["route"], by_service["status"]) == ("/test/seen", 200)


def test_every_line_of_the_service_is_one_json_object(
    site: Site, member: Member, visitor: EdgeVisitor
) -> None:
    assert visitor.ask("/test/broken").status == 500
    for log in ("web", "worker"):
        for line in site.lines(log):
            assert {"event", "level", "timestamp"} <= line.keys()
        assert not (site.folder / f"{log}.err").read_text()
    said = [line["event"] for line in site.lines("web")]
    assert any(event.startswith("Starting gunicorn") for event in said)
    assert "request" in said
    fault = [line for line in site.lines("web") if line["level"] == "error"]
    assert fault
    assert all("RuntimeError" in json.dumps(line) for line in fault)


def test_no_log_holds_a_secret_or_who_somebody_is(
    site: Site, member: Member, visitor: EdgeVisitor
) -> None:
    assert visitor.ask("/test/broken").status == 500
    assert visitor.ask(f"/login?next=/{ADDRESS}").status == 200
    secrets = [ADDRESS, PASSWORD, member.link.rpartition("/")[2]]
    secrets += member.visitor.cookies.values()
    secrets += re.findall(r"^APP_\w+=(.+)", site.settings.read_text(), re.MULTILINE)
    logged = site.all_that_is_logged()
    assert len(secrets) >= 7
    assert not [secret for secret in secrets if secret in logged]


# --- Accounts and mail ----------------------------------------------------------------


def test_somebody_signs_up_by_mail_and_signs_in(site: Site, member: Member) -> None:
    page = member.visitor.ask("/account")
    assert ADDRESS in page.body
    assert "no-store" in (page.header("Cache-Control") or "")
    with closing(sqlite3.connect(site.service / "instance/production.db")) as database:
        query = "select current_login_ip, confirmed_at is not null from users"
        found = database.execute(f"{query} where email = ?", [ADDRESS]).fetchone()
    assert found == ("127.0.0.1", 1)


def test_a_mail_server_that_is_away_loses_no_account_and_no_mail(site: Site) -> None:
    late, visitor = "late@bulwark-tests.net", EdgeVisitor(site.nginx)
    with site.mailbox.away():
        assert visitor.fill_in("/register", email=late).status == 200
        eventually(lambda: "mail_delayed" in (site.folder / "worker").read_text())
        assert not site.mailbox.link_to(late)
    # The worker tries again after ten seconds, then thirty.
    link = eventually(lambda: site.mailbox.link_to(late), patience=90)
    assert visitor.fill_in(link, password=PASSWORD).status == 302
    visitor.fill_in("/login", email=late, password=PASSWORD)
    assert visitor.ask("/account").status == 200


# --- gunicorn -------------------------------------------------------------------------


def test_settings_that_are_refused_end_gunicorn_with_the_reason(
    site: Site, tmp_path: Path
) -> None:
    settings = tmp_path / ".env.production"
    lines = site.settings.read_text().splitlines()
    settings.write_text("\n".join(x for x in lines if "PEPPER" not in x))
    settings.chmod(0o600)
    begin = time.monotonic()
    done = subprocess.run(
        [site.service / ".venv/bin/gunicorn", f"--bind=unix:{tmp_path}/socket"],
        cwd=site.service,
        env=ENVIRONMENT | {"ENV_FILE": str(settings)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    took = time.monotonic() - begin
    assert done.returncode == 3
    assert "APP_PASSWORD_PEPPER is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert took < 10, "2 s on a machine that does nothing else"


def test_the_socket_is_for_the_owner_and_his_group(site: Site) -> None:
    assert site.nginx.socket.stat().st_mode & 0o777 == 0o770


def test_gunicorn_opens_no_other_way_in(site: Site) -> None:
    assert not (site.folder / "home").exists()
    assert {p.name for p in site.nginx.socket.parent.iterdir()} == {"web.sock"}


def ask_by_socket(address: Path, target: str, **headers: str) -> Response:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE)
        stream.connect(str(address))
        return exchange(stream, "GET", target, None, headers)


def test_gunicorn_itself_believes_no_header(site: Site) -> None:
    """It trusts who reaches its socket; bulwark.web.proxy says what to make of that."""
    over_tls = {"X-Forwarded-Proto": "https"}
    for name in ("SCRIPT_NAME", "PATH_INFO", "X_Real_IP"):
        lie = {name: "/evil"}
        answer = ask_by_socket(site.nginx.socket, "/test/seen", **over_tls, **lie)
        assert answer.status == 200
        assert "evil" not in answer.body
    lie = {"X-Forwarded-Ssl": "on"}
    assert ask_by_socket(site.nginx.socket, "/login", **lie).status == 301


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_gunicorn_tells_its_health_whatever_host_is_named(
    site: Site, visitor: EdgeVisitor, path: str
) -> None:
    """nginx can't: it does not know for which of its services another host stands."""
    assert ask_by_socket(site.nginx.socket, path, Host="10.1.2.3").status == 200
    assert ask_by_socket(site.nginx.socket, "/login", Host="10.1.2.3").status == 400
    assert visitor.ask(path, Host="10.1.2.3").status == 421


def test_a_restart_refuses_no_request(site: Site, tmp_path: Path) -> None:
    """systemd holds the socket, so who comes meanwhile waits in it."""
    address = tmp_path / "web.sock"
    begin = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""

    def ask() -> None:
        over_tls = {"X-Forwarded-Proto": "https"}
        answers.append(ask_by_socket(address, "/healthz", **over_tls).status)

    answers: list[int] = []
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(address))
        held.listen()
        for start in (1, 2):
            early = threading.Thread(target=ask)
            early.start()
            with running(
                *(sys.executable, "-c", begin, str(held.fileno())),
                site.service / ".venv/bin/gunicorn",
                log=tmp_path / "web",
                cwd=site.service,
                env=ENVIRONMENT,
                pass_fds=[held.fileno()],
            ):
                early.join()
                assert answers == [200] * start
                time.sleep(1)  # gunicorn misses a SIGTERM while it forks workers
            assert address.exists()


# --- The files for nginx --------------------------------------------------------------


def test_two_services_share_one_nginx_whatever_their_names(
    service: Path, make: Make, tmp_path: Path
) -> None:
    slug, domain = "x" * 31, ".".join(["y" * 63] * 3 + ["example"])
    another = make(project_slug=slug, domain=domain)
    first = Nginx(service, DOMAIN, SLUG, tmp_path / "first")
    second = Nginx(another, domain, slug, tmp_path / "second")
    done = second.apply(first.folder)
    assert done.returncode == 0, done.stderr
    assert (first.folder / slug / "https.conf").exists()


def test_what_is_not_deployed_is_not_there(make: Make) -> None:
    service = make(deploy=[])
    there = {path.name for path in (service / "deploy").iterdir()}
    assert there == {".gitattributes", "README.md", "common.sh", "nginx"}
    assert not (service / "compose.yaml").exists()
