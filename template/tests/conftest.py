"""What all tests share: the app on a database of its own, and visitors with browsers.

The base's tests are in `bulwark/`; yours go into `app/` and may use all of this.
"""

import atexit
import faulthandler
import gc
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import create_engine, event, make_url, text
from werkzeug.test import TestResponse

from tests.fixtures import ApiClients, RunJobs, api_client, run_jobs

__all__ = ["ApiClients", "RunJobs", "api_client", "run_jobs"]

ROOT = Path(__file__).parent.parent
GOOD_PASSWORD = "purple otter juggles lamps"
ROWS_STAY = ("roles", "audit_permits")  # tables that tests share

os.environ["APP_ENV"] = "testing"


def _use_a_database_of_this_worker() -> None:
    """Let tests run side by side: each worker has its own PostgreSQL database."""
    url = os.environ.get("APP_DATABASE_URL")
    if not url or not url.startswith("postgresql"):
        return
    own = make_url(url).set(drivername="postgresql+psycopg")
    name = f"{own.database}_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    engine = create_engine(own, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}"'))
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    os.environ["APP_DATABASE_URL"] = (
        make_url(url).set(database=name).render_as_string(hide_password=False)
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Let warnings about the base fail a test; those about your code are only shown.

    An error would fail whichever test happens to run then, such as one of the base.
    """
    warnings.filterwarnings("error", module=r"(bulwark|tests\.bulwark)(\.|\Z)")
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Start workers for the whole suite only: for a few tests they take longer."""
    option = config.option
    few = option.file_or_dir or option.keyword or option.markexpr or option.lf
    return 0 if few else None


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of tests that prove a promise of docs/promises.md."""
    config.addinivalue_line("markers", "promise(name): the test proves this promise")


def pytest_unconfigure() -> None:
    """Name the threads that still run after the tests, and end without them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # It waits for the other workers, and xdist ends it.
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__ or 2)
    # Python calls this once it has waited for the threads.
    atexit.register(faulthandler.cancel_dump_traceback_later)


@pytest.fixture(scope="session")
def mailbox() -> Iterator[Path]:
    """The folder where the emails of the tests arrive."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def whole_app(
    mailbox: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """The app with its database migrated, made once for each worker."""
    from flask_migrate import upgrade

    from bulwark.database import db
    from bulwark.identity import roles
    from bulwark.jobs import queue

    _use_a_database_of_this_worker()
    os.environ["APP_MAIL_URL"] = f"mailbox:{mailbox}"
    os.environ["APP_METRICS_FOLDER"] = str(tmp_path_factory.mktemp("metrics"))
    os.environ["APP_UPLOADS_FOLDER"] = str(tmp_path_factory.mktemp("uploads"))
    from app import create_app

    app = create_app()
    with app.app_context():
        upgrade(revision="heads")
        queue.create_tables()
        list(roles.make_roles())
        db.session.commit()
    gc.collect()
    gc.freeze()  # what lives as long as the tests is not looked through again and again
    yield app
    with app.app_context():
        queue.storage.close()
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def app(whole_app: Flask, mailbox: Path) -> Iterator[Flask]:
    """The app; what a test writes is gone after it."""
    from bulwark.jobs import queue
    from bulwark.web.rate_limits import limiter

    yield whole_app
    limiter.storage.reset()
    with whole_app.app_context():
        delete_rows()
        queue.flush()
    uploads = Path(whole_app.config["UPLOADS_FOLDER"])
    for file in (*mailbox.iterdir(), *uploads.rglob("*")):
        if file.is_file():
            file.unlink()


def delete_rows() -> None:
    """Delete all rows but those that `whole_app` made."""
    from bulwark.audit import trail
    from bulwark.database import db

    with trail.unlocked():
        for table in reversed(db.metadata.sorted_tables):
            if table.name not in ROWS_STAY:
                db.session.execute(table.delete())
    db.session.commit()


def given_up(app: Flask) -> dict[str, str]:
    """Return the promises that the service gives up, each with the reason."""
    declared: dict[str, str] = app.extensions["bulwark_promises"]
    return declared


@pytest.fixture(autouse=True)
def _follow_the_declared_promises(request: pytest.FixtureRequest) -> None:
    """Expect a test to fail if it proves a promise that the service gives up."""
    if marker := request.node.get_closest_marker("promise"):
        (name,) = marker.args
        reason = given_up(request.getfixturevalue("whole_app")).get(name)
        if reason is not None:
            why = f"{name} is given up: {reason}"
            request.applymarker(pytest.mark.xfail(raises=AssertionError, reason=why))


@dataclass
class Visitor:
    """Somebody with a browser: keeps cookies, sends forms as their page has them."""

    app: Flask
    mailbox: Path
    client: FlaskClient = field(init=False)
    _script_token: tuple[str, str] = field(init=False, default=("", ""))

    def __post_init__(self) -> None:
        self.client = self.app.test_client()

    def get(self, path: str, **options: Any) -> TestResponse:
        """Open a page."""
        return self.client.get(path, **options)

    def submit(
        self, path: str, data: Mapping[str, Any], *, times: int = 1, **options: Any
    ) -> TestResponse:
        """Open a page, fill its form and send it (`times` times), as a browser does.

        A file is `(BytesIO(content), name)`.
        """
        token = self.csrf_token(path)
        headers = {"Referer": f"https://localhost{path}", **options.pop("headers", {})}
        for _ in range(times):
            answer = self.client.post(
                path, data={"csrf_token": token, **data}, headers=headers, **options
            )
            answer.request.input_stream.close()  # a large one is a file
        return answer

    def send(self, path: str, data: dict[str, Any]) -> TestResponse:
        """Send JSON, as a script of a page does."""
        headers = {
            "X-CSRFToken": self._token_of_session(),
            "Referer": "https://localhost/",
        }
        return self.client.post(path, json=data, headers=headers)

    def _token_of_session(self) -> str:
        """Return a CSRF token; only a new session needs a page with a new one."""
        if self._script_token[0] != (self._session() or None):
            token = self.csrf_token("/reset")
            self._script_token = self._session(), token
        return self._script_token[1]

    def _session(self) -> str:
        cookie = self.client.get_cookie(self.app.config["SESSION_COOKIE_NAME"])
        return cookie.value if cookie else ""

    def csrf_token(self, path: str = "/login") -> str:
        """Return the token of a page's first form."""
        page = self.get(path).get_data(as_text=True)
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
        assert found, f"{path} has no form with a CSRF token"
        return found[1]

    def sign_in(self, email: str, password: str = GOOD_PASSWORD) -> TestResponse:
        """Sign in with the form, and the authenticator app of whoever has one."""
        answer = self.submit("/login", {"email": email, "password": password})
        if answer.headers.get("Location", "").startswith("/login/code"):
            answer = self.submit("/login/code", {"code": totp_code(self.app, email)})
        return answer

    def create_account(
        self,
        link: str,
        password: str = GOOD_PASSWORD,
        email: str = "new@example.org",
        **options: Any,
    ) -> TestResponse:
        """Open the link of a sign-up or an invitation, and fill in the form.

        Your fields get values, and your terms are accepted: see `tests/sign_up.py`.
        """
        from tests import sign_up

        others = sign_up.required(self.app, email)
        return self.submit(link, {"password": password, **others}, **options)

    def is_signed_in(self) -> bool:
        """Tell whether the account page opens."""
        return self.get("/account").status_code == 200

    def letters(self) -> list[EmailMessage]:
        """Let the worker deliver, and return all emails in order of arrival."""
        from bulwark.mail import outbox

        with self.app.app_context():
            outbox.deliver_due()
        paths = sorted(self.mailbox.glob("*.eml"))
        return [_letter(path, path.stat().st_mtime_ns) for path in paths]

    def link_in_last_letter(self) -> str:
        """Return the path of the link in the newest mail."""
        body = self.letters()[-1].get_body(("plain",))
        assert body is not None
        found = re.search(r"https://localhost(/\S+)", body.get_content())
        assert found, "the email has no link"
        return found[1]


@lru_cache
def _letter(path: Path, _written: int) -> EmailMessage:
    """Read a mail once, because Python takes milliseconds for each."""
    return message_from_bytes(path.read_bytes(), policy=default)


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    """What the database is asked; clear it when what counts begins."""
    from bulwark.database import db

    asked: list[str] = []

    def keep(*arguments: Any) -> None:
        asked.append(arguments[2])

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", keep)
    yield asked
    event.remove(engine, "before_cursor_execute", keep)


@pytest.fixture
def visitor(app: Flask, mailbox: Path) -> Visitor:
    """A visitor whom nobody knows."""
    return Visitor(app, mailbox)


@pytest.fixture
def other_visitor(app: Flask, mailbox: Path) -> Visitor:
    """A second visitor, with a browser of their own."""
    return Visitor(app, mailbox)


@pytest.fixture
def person(app: Flask) -> str:
    """The address of somebody with a confirmed account and `GOOD_PASSWORD`."""
    return add_person(app, "zoe@example.org")


def name_of(app: Flask) -> str:
    """Return what the service is called in its emails."""
    return str(app.extensions["bulwark"].name)


def add_person(app: Flask, email: str, *roles: str, totp: bool = False) -> str:
    """Add somebody with a confirmed account; return the address.

    Your fields have values, and your terms are accepted: see `tests/sign_up.py`.

    With `totp`, or where a role requires a second factor, they have an authenticator
    app, whose codes `totp_code` returns.
    """
    from flask_security import hash_password

    from bulwark.database import db, utcnow
    from tests import sign_up

    with app.app_context():
        security = app.extensions["security"]
        with db.session.no_autoflush:
            user = security.datastore.create_user(
                email=email,
                password=hash_password(GOOD_PASSWORD),
                confirmed_at=utcnow(),
                roles=list(roles),
            )
            sign_up.fill(app, user)
        db.session.flush()
        if totp or user.must_have_second_factor:
            user.tf_totp_secret = security.totp_factory.generate_totp_secret()
            user.tf_primary_method = "authenticator"
        db.session.commit()
    return email


def totp_code(app: Flask, email: str) -> str:
    """Return the code that somebody's authenticator app shows, as if never used."""
    from bulwark.database import db

    with app.app_context():
        security = app.extensions["security"]
        user = security.datastore.find_user(email=email)
        user.totp_counter = None
        db.session.commit()
        code: str = security.totp_factory.generate_totp_password(user.tf_totp_secret)
    return code
