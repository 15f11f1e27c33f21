"""Logs: one line a request, one object a line, nothing that is secret or personal."""

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from bulwark.database import db
from bulwark.observability import logging as bulwark_logging
from tests.conftest import GOOD_PASSWORD, Visitor


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, as production logs it."""
    out = io.StringIO()
    monkeypatch.setattr(bulwark_logging, "sys", SimpleNamespace(stdout=out, stderr=out))
    bulwark_logging.configure("INFO", readable=False)
    yield out
    monkeypatch.undo()
    bulwark_logging.configure("INFO", readable=True)


def logged(lines: io.StringIO) -> list[dict[str, object]]:
    """Read each line as one JSON object."""
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_each_request_has_one_line_with_the_id_of_its_answer(
    visitor: Visitor, lines: io.StringIO
):
    answer = visitor.get("/healthz")
    (line,) = logged(lines)
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert line["route"] == "/healthz"
    assert line["status"] == 200
    assert {"timestamp", "level", "event", "method", "milliseconds"} <= line.keys()


def test_a_valid_request_id_is_used_and_any_other_is_replaced(visitor: Visitor):
    good = "0123456789abcdef0123456789abcdef"
    sent = {"X-Request-ID": good}
    assert visitor.get("/healthz", headers=sent).headers["X-Request-ID"] == good
    for bad in ("short", "x" * 65, 'a" onload="alert(1)a', "<script>aaaaaaaaaaaa"):
        answer = visitor.get("/healthz", headers={"X-Request-ID": bad})
        assert answer.headers["X-Request-ID"] != bad


@pytest.mark.usefixtures("public_sign_up")
def test_no_secret_and_no_person_is_in_any_line(
    visitor: Visitor, app: Flask, lines: io.StringIO
):
    email = "canary@example.org"
    visitor.submit("/register", {"email": email})
    link = visitor.link_in_last_letter()
    visitor.create_account(link)
    visitor.submit("/login", {"email": email, "password": "a wrong one"})
    visitor.sign_in(email)
    visitor.get(f"/account?token={GOOD_PASSWORD}")
    visitor.get(f"/nowhere/{email}")
    text = lines.getvalue()
    session = visitor.client.get_cookie("__Host-session")
    assert session
    for canary in ("canary", GOOD_PASSWORD, link, session.value):
        assert canary not in text
    assert len(logged(lines)) >= 8


@pytest.mark.parametrize(
    "hostile",
    ["a\r\nb", "a\x1b[31mb", "a\u2028b", "a\u2029b", "a\u0085b", 'a"}\n{"b":1'],
)
def test_one_event_is_one_line_whatever_it_holds(hostile: str, lines: io.StringIO):
    bulwark_logging.log.info("event", value=hostile)
    logging.getLogger("elsewhere").warning("from the library: %s", hostile)
    assert len(lines.getvalue().splitlines()) == 2
    assert logged(lines)[0]["data"] == {"value": hostile}
    assert lines.getvalue().isascii()


def test_a_failing_statement_does_not_show_its_values(app: Flask, lines: io.StringIO):
    statement = text("INSERT INTO users_roles VALUES (:user, 999)")
    with app.app_context():
        try:
            db.session.execute(statement, {"user": 424242})
        except IntegrityError:
            bulwark_logging.log.exception("failed")
        db.session.rollback()
    assert "IntegrityError" in lines.getvalue()
    assert "424242" not in lines.getvalue()


def test_an_exception_is_in_the_line_with_its_request(
    visitor: Visitor, app: Flask, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
):
    def fail() -> None:
        local_secret = GOOD_PASSWORD
        raise ZeroDivisionError(len(local_secret))

    fail.access = "public"  # type: ignore[attr-defined]
    monkeypatch.setitem(app.view_functions, "health.live", fail)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    answer = visitor.get("/healthz")
    failure = next(line for line in logged(lines) if line["level"] == "error")
    assert failure["request_id"] == answer.headers["X-Request-ID"]
    assert "ZeroDivisionError" in str(failure["exception"])
    assert GOOD_PASSWORD not in lines.getvalue()


def test_development_reads_like_text(capsys: pytest.CaptureFixture[str]):
    bulwark_logging.configure("INFO", readable=True)
    bulwark_logging.log.info("hello", colour="red")
    assert "colour=red" in capsys.readouterr().out
