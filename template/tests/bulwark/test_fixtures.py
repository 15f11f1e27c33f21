"""The fixtures that a team's tests use, and whose warnings fail a test."""

import warnings
from datetime import timedelta
from types import ModuleType

import pytest
from flask import Flask
from time_machine import TimeMachineFixture

from bulwark.database import utcnow
from bulwark.jobs import queue
from tests.conftest import ApiClients, RunJobs, Visitor, add_person

done: list[str] = []


@queue.task(name="tests_note")  # type: ignore[untyped-decorator]
def note(text: str) -> None:
    """Write down what a job was given."""
    done.append(text)


@queue.task(name="tests_fail", retries=1, retry_delay=60)  # type: ignore[untyped-decorator]
def fail() -> None:
    """Fail."""
    raise ZeroDivisionError


def test_queued_jobs_run_at_once(run_jobs: RunJobs):
    done.clear()
    note("one")
    note("two")
    run_jobs()
    run_jobs()
    assert done == ["one", "two"]


def test_a_job_that_fails_fails_the_test(run_jobs: RunJobs):
    fail()
    with pytest.raises(ZeroDivisionError):
        run_jobs()


def test_a_delayed_job_runs_when_its_time_has_come(
    run_jobs: RunJobs, time_machine: TimeMachineFixture
):
    done.clear()
    note.schedule(("later",), delay=3600)
    run_jobs()
    assert done == []
    time_machine.move_to(utcnow() + timedelta(hours=1, minutes=1), tick=True)
    run_jobs()
    assert done == ["later"]


def test_a_session_ends_when_time_passes(
    visitor: Visitor, person: str, time_machine: TimeMachineFixture
):
    visitor.sign_in(person)
    time_machine.move_to(utcnow() + timedelta(minutes=59), tick=True)
    assert visitor.is_signed_in()
    time_machine.move_to(utcnow() + timedelta(minutes=61), tick=True)
    assert not visitor.is_signed_in()


def test_a_client_sends_a_token_with_its_permissions(
    app: Flask, api_client: ApiClients
):
    ada = add_person(app, "ada@example.org", "administrator")
    assert api_client(ada, "users:read").get("/admin").status_code == 200
    assert api_client(ada).get("/admin").status_code == 403


def warn_from(name: str) -> None:
    """Warn as a module with this name does."""
    module = ModuleType(name)
    code = "import warnings\nwarnings.warn('old', DeprecationWarning)"
    exec(code, module.__dict__)


@pytest.mark.parametrize("name", ["bulwark", "bulwark.web", "tests.bulwark.web"])
def test_a_warning_about_the_base_is_an_error(name: str):
    with pytest.raises(DeprecationWarning):
        warn_from(name)


@pytest.mark.parametrize("name", ["app", "app.views", "tests.app", "library"])
def test_a_warning_about_code_of_the_team_is_shown(name: str):
    with warnings.catch_warnings(record=True) as shown:
        warn_from(name)
    assert [str(warning.message) for warning in shown] == ["old"]
