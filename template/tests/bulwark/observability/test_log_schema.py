"""Lines: each fits the schema, and none holds what is never logged."""

import json
import logging
from dataclasses import dataclass, replace
from typing import Any

import jsonschema
import pytest
from flask import Flask
from sqlalchemy import text

from bulwark import settings
from bulwark.audit import events
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.observability.logging import log
from bulwark.observability.redaction import Shape, names_of, secrets_of
from bulwark.settings.fields import setting
from bulwark.web.access import public
from tests.bulwark.conftest import Written
from tests.conftest import GOOD_PASSWORD, ROOT, Visitor, add_person

CANARY = "turquoise-canary-31415"


def test_every_line_of_a_visit_fits_the_schema(
    written: Written, visitor: Visitor, app: Flask, person: str
):
    visitor.sign_in(person, "a wrong password")
    visitor.sign_in(person)
    visitor.get("/admin/users")
    visitor.get("/nothing")
    names = {line["event"] for line in written.lines()}
    assert {"request", "authn_login_fail", "authz_fail"} <= names


def test_lines_of_libraries_and_of_the_team_fit_it_too(written: Written):
    logging.getLogger("gunicorn.error").info("Booting worker with pid: %s", 7)
    log.info("invoice_paid", invoice=17, lines=[{"article": "pen"}], paid=None)
    library, own = written.lines()
    assert library["event"] == "Booting worker with pid: 7"
    assert own["data"] == {"invoice": 17, "lines": [{"article": "pen"}]}


def test_a_team_may_use_the_name_of_a_field_for_something_else(written: Written):
    log.info("order", status="paid", count="many", days=True)
    (line,) = written.lines()
    assert line["data"] == {"status": "paid", "count": "many", "days": True}


@pytest.mark.parametrize(
    "name",
    ["password", "new_password", "API-Key", "reset_link", "Authorization", "email"],
)
def test_a_field_with_such_a_name_is_not_shown(written: Written, name: str):
    log.info("something", **{name: CANARY}, deep={name: CANARY})
    (line,) = written.lines()
    assert CANARY not in json.dumps(line)


def test_what_a_column_holds_as_secret_or_personal_is_not_shown(written: Written):
    columns = sorted(set(names_of(db.metadata)))
    assert {"password", "token_hash", "last_login_ip"} <= set(columns)
    for name in columns:
        log.info("something", deep={name: CANARY})
    assert CANARY not in written.getvalue()


def test_secrets_of_the_team_are_taken_out_too(written: Written):
    shape = Shape()
    shape.configure(settings.Testing(), ["blood_group"], secrets_of(Own()))
    hidden = ["hush-hush-hush", "swordfish-31415", "https://hooks.example/T1/B2/hidden"]
    line = shape(
        None, "", {"event": "x", "content": " ".join(hidden), "blood_group": "A"}
    )
    output = json.dumps(line)
    assert not [secret for secret in hidden if secret in output]
    assert line["data"]["blood_group"] == "[redacted]"
    assert "not-a-secret" in json.dumps(shape(None, "", {"event": "not-a-secret"}))


@dataclass(frozen=True)
class Own:
    """Settings of a team."""

    api_key: str = setting("", default="hush-hush-hush", secret=True)
    store: str = setting("", default="https://me:swordfish-31415@x.net", secret=True)
    hook: str = setting("", default="https://hooks.example/T1/B2/hidden", secret=True)
    colour: str = setting("", default="not-a-secret")


@pytest.mark.parametrize(
    "content",
    [
        "zoe@example.org",
        "zoe+more@mail.example.org",
        "postgresql://app:hidden-word@db/app",
        "postgresql://app:of#many?parts/hidden-word@db/app",
        "/reset/WyI3ODQ1NzQ1ZGY4Il0.awbVfw.dLQAqK329w8xXsf_etYla38sKUA",
        "bwk_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_any_text(
    written: Written, content: str
):
    log.warning(f"about {content} here", where=f"it was {content}")
    try:
        int(content)
    except ValueError:
        log.exception("failed")
    for line in written.lines():
        secret = content.partition("://app:")[2].partition("@")[0] or content
        assert secret.rpartition("/")[2] not in json.dumps(line)


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("smtp://user:hunter2secret%23ss@mail.example.com", "port 'hunter2secret'"),
        ("smtp://user:ss%2Fhunter2secret@mail.example.com", "host hunter2secret@mail"),
        (
            "smtp://user:hunter2%5Bsecret%5D@h.com",
            "netloc 'user:hunter2[secret]@h.com'",
        ),
        ("https://hunter2secret@sentry.example.com/1", "key hunter2secret"),
        (
            "https://hooks.example.com/a@b/hunter2",
            "https://hooks.example.com/a@b/hunter2",
        ),
    ],
)
def test_parts_of_a_password_that_an_exception_quotes_are_taken_out(
    written: Written, url: str, content: str
):
    shape = Shape()
    shape.configure(settings.Testing(), [], secrets_of(replace(Own(), store=url)))
    line = shape(None, "", {"event": "x", "exception": [{"exc_value": content}]})
    assert "hunter2" not in json.dumps(line)


def test_secrets_of_the_settings_are_taken_out(written: Written, app: Flask):
    config = app.extensions["bulwark"]
    log.error("boot", content=f"with {config.secret_key} and {config.password_pepper}")
    assert config.secret_key not in written.getvalue()
    assert written.lines()[0]["data"]["content"].startswith("with [redacted]")


def test_no_planted_secret_is_in_logs_metrics_or_the_database(
    written: Written, visitor: Visitor, other_visitor: Visitor, app: Flask
):
    from prometheus_client import generate_latest

    from bulwark.ops import exporter

    ada = add_person(app, "ada@example.org", "administrator")
    for email in (ada, f"{CANARY}@example.org", CANARY):
        other_visitor.submit("/login", {"email": email, "password": CANARY})
    other_visitor.get(f"/reset/{CANARY}")
    other_visitor.get(f"/?q={CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
    other_visitor.get("/", headers={"Cookie": f"x={CANARY}", "X-Api-Key": CANARY})
    other_visitor.client.post("/login", json={"email": CANARY, "password": CANARY})
    visitor.sign_in(ada)
    visitor.submit("/change", {"password": CANARY, "new_password": CANARY})
    assert len(written.lines()) > 10
    with app.app_context():
        dump = "".join(
            str(tuple(row))
            for table in db.metadata.sorted_tables
            for row in db.session.execute(text(f'SELECT * FROM "{table.name}"'))
        )
    metrics = generate_latest(exporter.registry(app)).decode()
    letters = "".join(letter.as_string() for letter in visitor.letters())
    for where in (written.getvalue(), dump, metrics, letters):
        assert CANARY not in where
        assert GOOD_PASSWORD not in where


def test_an_exception_is_logged_without_the_path(
    written: Written, visitor: Visitor, app: Flask, monkeypatch: pytest.MonkeyPatch
):
    @public
    def fail() -> None:
        password = CANARY
        raise RuntimeError("out of paper" + password[:0])

    monkeypatch.setitem(app.view_functions, "app.home", fail)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    assert visitor.get(f"/?q={CANARY}").status_code == 500
    (line,) = [line for line in written.lines() if line["level"] == "error"]
    assert (line["event"], line["route"]) == ("sys_error", "/")
    assert line["exception"][0]["exc_value"] == "out of paper"
    assert CANARY not in written.getvalue()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"path": "/login", "data": {"email": "x"}}, "CSRFError"),
        ({"path": "/login", "json": []}, "BadRequest"),
        ({"path": "/", "base_url": "https://evil.example"}, "SecurityError"),
        ({"path": "/login", "data": b"x" * 2_000_000}, "RequestEntityTooLarge"),
    ],
)
def test_an_invalid_request_is_logged(
    written: Written, visitor: Visitor, sent: dict[str, Any], reason: str
):
    visitor.client.post(**sent)
    logged = [x for x in written.lines() if x["event"] == "input_validation_fail"]
    assert [line["reason"] for line in logged] == [reason]


def test_a_job_that_fails_is_logged(written: Written, app: Flask):
    def fail() -> None:
        raise RuntimeError("out of paper")

    job = queue.task(name="print_bills")(fail)
    job()
    try:
        queue.execute(queue.dequeue())
    finally:
        queue._registry.unregister(job.task_class)
    (line,) = [line for line in written.lines() if line["event"] == "sys_error"]
    assert line["job"] == "print_bills"


def test_an_event_is_emitted_or_recorded_as_its_kind_requires(app: Flask):
    with app.app_context():
        with pytest.raises(TypeError, match="for record"):
            events.emit("authn_logout")
        with pytest.raises(TypeError, match="for emit"):
            events.record("sys_error")
        with pytest.raises(TypeError, match="colour"):
            events.emit("sys_error", colour="red")


def test_the_documentation_lists_all_events_and_fields(app: Flask):
    output = app.test_cli_runner().invoke(args=["audit", "catalogue"]).stdout
    page = ROOT / "docs/events.md"
    assert page.read_text() == output


def test_the_schema_can_be_exported(app: Flask):
    output = app.test_cli_runner().invoke(args=["audit", "schema"]).stdout
    jsonschema.Draft202012Validator.check_schema(json.loads(output))
