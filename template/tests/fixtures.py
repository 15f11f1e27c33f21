"""Fixtures for your tests: API clients, and jobs that run at once.

`time_machine` moves the clock: https://time-machine.readthedocs.io, the pytest plugin.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from huey.signals import SIGNAL_ERROR

ApiClients = Callable[..., FlaskClient]
RunJobs = Callable[[], None]


@pytest.fixture
def api_client(app: Flask) -> ApiClients:
    """Return clients with an access token: `api_client(person, "books:read")`."""
    from bulwark.database import db
    from bulwark.identity import tokens

    def client_of(email: str, *permissions: str) -> FlaskClient:
        with app.app_context():
            user = app.extensions["security"].datastore.find_user(email=email)
            token, _ = tokens.make(user, "Tests", permissions, 30)
            db.session.commit()
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    return client_of


@pytest.fixture
def run_jobs(app: Flask) -> Iterator[RunJobs]:
    """Run the jobs that are due, as a worker does, but in this process: `run_jobs()`.

    The first error of a job of `@queue.task` is raised. That of a `@job` is in its run.
    """
    from bulwark.jobs import queue
    from bulwark.jobs.runner import runner

    errors: list[Exception] = []

    def keep(_: str, __: Any, error: Exception) -> None:
        errors.append(error)

    def run() -> None:
        for task in queue.read_schedule():
            queue.enqueue(task)
        while (task := queue.dequeue()) is not None:
            queue.execute(task)
            if errors:
                raise errors.pop()
        with app.app_context():
            runner.run_due()

    queue.signal(SIGNAL_ERROR)(keep)
    yield run
    queue.disconnect_signal(keep, SIGNAL_ERROR)
