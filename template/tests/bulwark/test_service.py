"""The service as a whole: health, worker, set-up, certificate, templates."""

import os
import re
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path

import pytest
from cryptography import x509
from flask import Flask
from jinja2 import Environment, nodes
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app import create_app
from bulwark import database, mail, settings
from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.database.engine import database_url
from bulwark.identity.models import Role
from bulwark.jobs import queue
from bulwark.jobs.task_queue import Queue
from bulwark.mail import outbox
from bulwark.ops import dev_certificate
from bulwark.web.rich_text import render_markdown, sanitize_html
from tests.conftest import ROOT, Visitor, add_person
from tests.own_settings import leave_out_own_settings


def test_the_service_is_live_and_ready(visitor: Visitor):
    assert visitor.get("/healthz").get_json() == {"status": "ok"}
    assert visitor.get("/readyz").get_json() == {"status": "ok"}


def test_without_its_database_it_is_not_ready_and_shows_no_details(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
):
    def away(*_: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception("at db.internal"))

    monkeypatch.setattr(db.session, "execute", away)
    answer = visitor.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert answer.get_json() == {"status": "unavailable"}


def test_setting_up_twice_changes_nothing(app: Flask):
    run = app.test_cli_runner().invoke
    assert run(args=["prepare"]).exit_code == 0
    with app.app_context():
        before = db.session.scalars(select(Role.name)).all()
    assert run(args=["prepare"]).output.strip() == ""
    with app.app_context():
        assert db.session.scalars(select(Role.name)).all() == before


def test_a_role_that_administrators_changed_stays_as_it_is(app: Flask):
    with app.app_context():
        role = db.session.scalars(
            select(Role).where(Role.name == "administrator")
        ).one()
        role.permissions, before = ["users:read"], role.permissions
        db.session.commit()
    app.test_cli_runner().invoke(args=["prepare"])
    with app.app_context():
        role = db.session.scalars(
            select(Role).where(Role.name == "administrator")
        ).one()
        assert role.permissions == ["users:read"]
        role.permissions = before
        db.session.commit()


def test_a_role_that_is_missing_is_made(app: Flask):
    with app.app_context():
        role = db.session.scalars(
            select(Role).where(Role.name == "administrator")
        ).one()
        db.session.delete(role)
        db.session.commit()
    assert (
        "created the role administrator"
        in app.test_cli_runner().invoke(args=["prepare"]).output
    )


def test_two_processes_may_make_the_roles_at_once(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        db.session, "scalars", lambda _: []
    )  # as if none were there yet
    assert app.test_cli_runner().invoke(args=["prepare"]).exit_code == 0


def test_models_without_a_migration_are_named_with_what_to_do(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    def lacking() -> None:
        raise OperationalError("SELECT", {}, Exception("no such column: users.phone"))

    monkeypatch.setattr("bulwark.ops.prepare.roles.make_roles", lacking)
    result = app.test_cli_runner().invoke(args=["prepare"])
    assert result.exit_code == 1
    assert "no such column: users.phone" in result.output
    assert "bin/flask db migrate" in result.output


def invite(app: Flask) -> str:
    return app.test_cli_runner().invoke(args=["accounts", "invite"]).output


def test_the_first_administrator_sets_a_password_with_a_link_that_works_once(
    visitor: Visitor, other_visitor: Visitor, app: Flask
):
    link = invite(app).splitlines()[-1].removeprefix("https://localhost")
    assert invite(app).splitlines()[-1].startswith("https://localhost/reset/")
    visitor.create_account(link)
    admin = (
        settings.Testing.defaults(ROOT, {}).get("admin_email")
        or app.config["ADMIN_EMAIL"]
    )
    visitor.sign_in(admin)
    assert visitor.get("/account").headers["Location"] == "/account/second-factor"
    assert other_visitor.get(link).headers["Location"] == "/reset"
    assert "already has a password" in invite(app)
    with app.app_context():
        someone = app.extensions["security"].datastore.find_user(email=admin)
        assert someone.has_permission("users:write")


def test_in_development_setting_up_makes_a_certificate_and_a_link(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from dataclasses import fields

    values = {
        f.name: getattr(app.extensions["bulwark"], f.name)
        for f in fields(settings.Config)
    }
    monkeypatch.setitem(app.extensions, "bulwark", settings.Development(**values))
    monkeypatch.setattr(app, "root_path", str(tmp_path / "app"))
    monkeypatch.setattr("bulwark.ops.prepare.upgrade", lambda revision: None)
    first = app.test_cli_runner().invoke(args=["prepare"])
    assert "created a development certificate" in first.output
    assert "https://localhost/reset/" in first.output
    again = app.test_cli_runner().invoke(args=["prepare"])
    assert "created a development certificate" not in again.output
    assert "https://" not in again.output, "a link is made once"
    assert "bin/flask accounts invite" in again.output
    with app.app_context():
        events_in_order = select(SecurityEvent.name).order_by(SecurityEvent.id)
        recorded = list(db.session.scalars(events_in_order))
        assert [n for n in recorded if n in ("user_created", "authz_change")] == [
            "user_created",
            "authz_change",
        ]


def test_the_worker_makes_its_tables_and_runs(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    ran = []

    class Consumer:
        stop_flag = threading.Event()

        def run(self) -> None:
            ran.append(True)

    monkeypatch.setattr(queue, "create_consumer", lambda **_: Consumer())
    assert app.test_cli_runner().invoke(args=["worker"]).exit_code == 0
    assert ran == [True]


@pytest.mark.parametrize(
    ("url", "storage"),
    [
        ("sqlite://", "MemoryStorage"),
        ("sqlite:///{}/service.db", "SqliteStorage"),
    ],
)
def test_the_queue_is_in_the_service_s_own_kind_of_database(
    url: str, storage: str, tmp_path: Path
):
    own = Queue()
    own.init_app(Flask("tests"), settings.Testing(database_url=url.format(tmp_path)))
    own.create_tables()
    assert type(own.storage).__name__ == storage


def test_the_folder_of_the_data_is_for_its_owner_alone(tmp_path: Path):
    config = settings.Testing(database_url=f"sqlite:///{tmp_path}/data/service.db")
    database.init_app(Flask("tests"), config)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_sqlite_keeps_foreign_keys_and_readers_beside_a_writer(tmp_path: Path):
    app = Flask("tests")
    config = settings.Testing(database_url=f"sqlite:///{tmp_path}/service.db")
    database.init_app(app, config)
    with app.app_context(), db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    with app.app_context():
        db.engine.dispose()


def test_the_password_of_the_database_comes_from_its_own_secret():
    config = settings.Production(
        database_url="postgresql://shop@/shop", database_password="p:/?w"
    )
    url = database_url(config)
    assert url.password == "p:/?w"
    assert url.drivername == "postgresql+psycopg"


def test_a_moment_keeps_its_zone_and_needs_one(app: Flask):
    add_person(app, "zoe@example.org")
    find = app.extensions["security"].datastore.find_user
    with app.app_context():
        someone = find(email="zoe@example.org")
        assert someone.created_at.utcoffset() == timedelta(0)
        someone.confirmed_at = utcnow().replace(tzinfo=None)
        with pytest.raises(Exception, match="needs a time zone"):
            db.session.commit()
        db.session.rollback()


def test_the_database_keeps_foreign_keys(app: Flask):
    from sqlalchemy import text
    from sqlalchemy.exc import IntegrityError

    with app.app_context():
        with pytest.raises(IntegrityError):
            db.session.execute(text("INSERT INTO users_roles VALUES (999, 999)"))
        db.session.rollback()


def test_the_certificate_is_made_once_and_its_key_is_private(tmp_path: Path):
    assert dev_certificate.make(tmp_path, "Café Zoë" * 30)
    before = (tmp_path / "localhost.pem").read_bytes()
    assert not dev_certificate.make(tmp_path, "Café")
    assert (tmp_path / "localhost.pem").read_bytes() == before
    assert stat.S_IMODE((tmp_path / "localhost.key").stat().st_mode) == 0o600
    assert not list(tmp_path.glob("authority.key"))


def test_a_certificate_that_expires_soon_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dev_certificate.make(tmp_path, "Café")
    monkeypatch.setattr(dev_certificate, "RENEW_BEFORE", dev_certificate.LIFE)
    assert dev_certificate.make(tmp_path, "Café")


def test_the_authority_vouches_for_this_machine_and_nothing_else(tmp_path: Path):
    dev_certificate.make(tmp_path, "Café")
    authority = x509.load_pem_x509_certificate(
        (tmp_path / "authority.pem").read_bytes()
    )
    limits = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert x509.DNSName("localhost") in (limits.value.permitted_subtrees or [])
    leaf = x509.load_pem_x509_certificate((tmp_path / "localhost.pem").read_bytes())
    leaf.verify_directly_issued_by(authority)
    context = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    assert context.cert_store_stats()["x509_ca"] == 1


STRONG = "kV3r8Q_xTz0nLw6yB-Jf9uHsM1pD4aGc7eRiXoN2tYbWqUhZ"
SETTINGS = {
    "ENV_FILE": "/nonexistent",
    "APP_SECRET_KEY": STRONG,
    "APP_PASSWORD_PEPPER": STRONG,
    "APP_ENCRYPTION_KEYS": f"1:{STRONG[:43]}",
    "APP_ALLOWED_HOSTS": "localhost",
}


@pytest.fixture
def development(
    whole_app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flask]:
    """The service as bin/dev serves it, beside the one of the other tests."""
    config = SETTINGS | {
        "APP_ENV": "development",
        "APP_MAIL_URL": f"mailbox:{tmp_path}/mailbox",
        "APP_DATABASE_URL": f"sqlite:///{tmp_path}/development.db",
    }
    for name, value in config.items():
        monkeypatch.setenv(name, value)
    leave_out_own_settings(monkeypatch)
    queue.storage.close()
    app = create_app()
    app.debug = True
    with app.app_context():
        db.create_all()
        queue.create_tables()
        yield app
        db.session.remove()
        db.engine.dispose()
    queue.storage.close()
    queue.init_app(whole_app, whole_app.extensions["bulwark"])


def test_development_shows_each_email_in_its_mailbox(development: Flask):
    client = development.test_client()
    mail.send(
        "A <b>bold</b> subject", "zoe@example.org", "Text.\n\nhttps://localhost/x"
    )
    db.session.commit()
    assert client.get("/dev/mailbox").status_code == 200
    outbox.deliver_due()
    page = client.get("/dev/mailbox").text
    assert "A &lt;b&gt;bold&lt;/b&gt; subject" in page
    found = re.search(r"/dev/mailbox/[\w-]+", page)
    assert found
    assert 'href="https://localhost/x"' in client.get(found[0]).text
    for bad in ("nothing", "..%2f..%2fdevelopment"):
        assert client.get(f"/dev/mailbox/{bad}").status_code == 404


def test_development_has_secure_cookies_and_leaves_other_ports_alone(
    development: Flask,
):
    answer = development.test_client().get("/login")
    assert re.search(
        "__Host-.*-session=.*; Secure; HttpOnly", answer.headers["Set-Cookie"]
    )
    assert "Strict-Transport-Security" not in answer.headers


def test_two_services_on_localhost_do_not_sign_each_other_out(
    development: Flask, monkeypatch: pytest.MonkeyPatch
):
    """A browser sends cookies to every port of a host (RFC 6265, 8.5)."""
    monkeypatch.setenv("APP_SLUG", "another")
    queue.storage.close()
    another = create_app()
    ours, theirs = (
        {
            cookie.partition("=")[0]
            for cookie in app.test_client().get("/login").headers.getlist("Set-Cookie")
            if cookie.startswith("__Host-")
        }
        for app in (development, another)
    )
    assert ours
    assert theirs
    assert not ours & theirs


def test_production_has_no_mailbox_logs_json_and_hashes_with_twelve_rounds(
    tmp_path: Path,
):
    code = """
import pytest
from tests.own_settings import leave_out_own_settings
leave_out_own_settings(pytest.MonkeyPatch())
import wsgi
from flask_security import hash_password
print([rule.rule for rule in wsgi.app.url_map.iter_rules()])
with wsgi.app.test_request_context():
    print(hash_password('x' * 15)[:7])
print(wsgi.app.test_client().get('/healthz', base_url='https://localhost').status)
"""
    own = {k: v for k, v in os.environ.items() if not k.startswith("APP_")}
    config = SETTINGS | {
        "APP_ENV": "production",
        "APP_MAIL_URL": "smtp://localhost",
        "APP_DATABASE_URL": f"sqlite:///{tmp_path}/production.db",
    }
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=own | config,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "/login" in ran.stdout, ran.stderr
    assert "/dev" not in ran.stdout
    assert "$2b$12$" in ran.stdout
    assert '"route": "/healthz"' in ran.stdout


def test_no_template_lets_text_through_unescaped(app: Flask):
    """In Python, ruff's S704 asks for a reason where text becomes `Markup`."""
    environment = app.jinja_env
    found = []
    for name in environment.list_templates(extensions=("html", "txt", "xml")):
        path = Path(environment.get_template(name).filename or "")
        if any(path.is_relative_to(ROOT / half) for half in ("app", "bulwark")):
            text = path.read_text(encoding="utf-8")
            found += [f"{name}:{line}" for line in unescaped(environment.parse(text))]
    assert found == []


def unescaped(template: nodes.Template) -> list[int]:
    """Return the lines that switch escaping off."""
    filters = [
        n
        for n in template.find_all(nodes.Filter)
        if n.name == "safe" and not is_sanitized(n.node)
    ]
    blocks = [
        block
        for block in template.find_all(nodes.ScopedEvalContextModifier)
        if any(option.value != nodes.Const(True) for option in block.options)
    ]
    return sorted(node.lineno for node in (*filters, *blocks))


def is_sanitized(value: nodes.Node | None) -> bool:
    """Return whether a value is the result of one of the base's own filters."""
    if not isinstance(value, nodes.Filter) or value.name not in ("rich", "markdown"):
        return False
    filters = value.environment.filters if value.environment else {}
    return filters.get(value.name) in (sanitize_html, render_markdown)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("{{ text }} |safe", []),
        ("{{ text | rich | safe }}", []),
        ("{{ text | markdown | safe }}", []),
        ("{{ text | rich | replace('a', b) | safe }}", [1]),
        ("{{ text|safe }}", [1]),
        ("\n{{ text | upper\n  |  safe }}", [3]),
        ("{% autoescape false %}{{ text }}{% endautoescape %}", [1]),
        ("{% autoescape true %}{{ text }}{% endautoescape %}", []),
    ],
)
def test_what_switches_escaping_off_is_found(text: str, lines: list[int]):
    environment = Environment(autoescape=True)
    environment.filters |= {"rich": sanitize_html, "markdown": render_markdown}
    assert unescaped(environment.parse(text)) == lines


def test_a_filter_of_the_team_does_not_count_as_sanitizing():
    environment = Environment(autoescape=True)
    environment.filters["rich"] = Markup
    assert unescaped(environment.parse("{{ text | rich | safe }}")) == [1]


def test_no_page_asks_anything_of_a_foreign_host(visitor: Visitor, person: str):
    visitor.sign_in(person)
    for path in ("/account", "/change", "/nowhere"):
        answer = visitor.get(path)
        loaded = re.findall(
            r'<(?:link|script|img|iframe)[^>]+(?:href|src)="([^"]+)"', answer.text
        )
        policy = answer.headers["Content-Security-Policy"]
        declared = tuple(re.findall(r"https://[^\s;]+", policy))  # in CSP_SOURCES
        assert loaded
        assert [
            address
            for address in loaded
            if re.match("[^/]|//", address)
            and not any(fnmatch(address, f"{source}*") for source in declared)
        ] == []
