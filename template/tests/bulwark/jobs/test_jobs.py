"""The queue: it holds data and no code, and only what this service wrote is run."""

import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import PostgresStorage
from sqlalchemy import select

from bulwark import settings
from bulwark.audit.events import SecurityEvent
from bulwark.database import db
from bulwark.jobs import queue, state
from bulwark.jobs.rows import ArgumentError, RowRefusedError
from bulwark.jobs.task_queue import OLD_ROWS, SIGNED_SINCE, Queue
from bulwark.ops import worker

KEYS = {"new": b"n" * 32, "old": b"o" * 32}
VALUES: dict[str, Any] = {
    "none": None,
    "yes": True,
    "whole": -(2**70),
    "number": 1.5,
    "endless": float("inf"),
    "text": "Zoë\x00\ud800$",
    "bytes": b"\x00\xff" * 200,
    "list": [1, ["two", None], {}],
    "dict": {"a": [1], "$text": 2, 3: date(2026, 11, 29), (1, "b"): []},
    "tuple": (1, (2,), ()),
    "set": {1, "a"},
    "frozenset": frozenset({2}),
    "moment": datetime(2026, 11, 29, 7, 30, 1, 5, tzinfo=UTC),
    "local": datetime(2026, 11, 29, 7, 30),  # noqa: DTZ001
    "time": time(7, 30),
    "span": timedelta(days=-1, microseconds=3),
    "money": Decimal("19.90"),
    "number_of_it": UUID("6f1f2c5e-9d0c-4f43-8f40-0e6d2b1d7a55"),
}


@dataclass
class Work:
    """A queue on a database of the app's kind, and what its jobs were given."""

    app: Flask
    url: str
    queue: Queue = field(default_factory=Queue)
    done: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart(KEYS)

    def restart(self, keys: dict[str, bytes]) -> None:
        """Let a new process have the queue, with these keys."""
        self.queue.storage.close()
        self.queue = Queue()
        config = settings.Testing(database_url=self.url, encryption_keys=keys)
        self.queue.init_app(self.app, config)
        self.queue.create_tables()
        self.queue.storage.blocking = False

        @self.queue.task(name="make_report")  # type: ignore[untyped-decorator]
        def make_report(**given: Any) -> None:
            self.done.append(given)

        self.make_report = make_report

    def start_worker(self) -> None:
        """Do what `flask worker` does first."""
        with self.app.app_context():
            worker.renew_rows(self.queue)

    def run(self) -> int:
        """Run what waits, as a worker does; return how many jobs there were."""
        count = 0
        for task in self.queue.read_schedule():
            self.queue.enqueue(task)
        while (task := self.queue.dequeue()) is not None:
            self.queue.execute(task)
            count += 1
        return count

    def add_row(self, data: bytes) -> None:
        """Add a row, as anyone who can write to the database may."""
        self.queue.storage.enqueue(data, 0)

    def add_as_before(self, *, delay: int = 0, **given: Any) -> None:
        """Queue a job as the release did that signed no rows."""
        signed, self.queue.serializer = self.queue.serializer, Serializer()
        if delay:
            # Without a zone it would be the time of the machine's own.
            eta = datetime.now(UTC) + timedelta(seconds=delay)
            self.queue.add_schedule(self.make_report.s(**given, eta=eta))
        else:
            self.make_report(**given)
        self.queue.serializer = signed

    def events(self) -> list[tuple[str, str | None]]:
        """Return what was recorded, with its reason."""
        with self.app.app_context():
            query = select(SecurityEvent).order_by(SecurityEvent.id)
            return [(e.name, e.reason) for e in db.session.scalars(query)]


@pytest.fixture
def work(app: Flask, tmp_path: Path) -> Iterator[Work]:
    """A queue of this test, on SQLite's file or on the PostgreSQL of the tests."""
    url = os.environ.get("APP_DATABASE_URL", "")
    work = Work(
        app, url if url.startswith("postgres") else f"sqlite:///{tmp_path}/service.db"
    )
    yield work
    work.queue.flush()
    work.queue.storage.close()


class Program:
    """What a pickle runs while it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_job_is_given_what_it_was_queued_with(work: Work):
    work.make_report(**VALUES)
    work.queue.add_schedule(work.make_report.s(**VALUES))
    assert work.run() == 2
    for given in work.done:
        for name, value in VALUES.items():
            assert given[name] == value, name
            assert type(given[name]) is type(value), name


def test_a_job_that_failed_is_tried_again_with_the_same(work: Work):
    tries: list[Any] = []

    @work.queue.task(retries=1, name="fail_once")  # type: ignore[untyped-decorator]
    def fail_once(*given: Any) -> None:
        tries.append(given)
        if len(tries) == 1:
            raise ValueError

    fail_once(1, b"two")
    work.run()
    work.run()
    assert tries == [(1, b"two")] * 2


def test_one_job_follows_another(work: Work):
    work.queue.enqueue(work.make_report.s(part=1).then(work.make_report, part=2))
    work.run()
    assert work.done == [{"part": 1}, {"part": 2}]


def test_a_job_that_is_revoked_is_not_run(work: Work):
    work.make_report.revoke()
    work.make_report(part=1)
    work.run()
    assert work.done == []


@pytest.mark.parametrize(
    "value", [object(), Path("/"), ValueError, len, {"a": {1: {}}, "b": object()}]
)
def test_what_no_row_can_hold_is_refused_where_it_is_queued(work: Work, value: object):
    with pytest.raises(ArgumentError, match=r"make_report.* who .*Pass None, bool"):
        work.make_report(who=value)
    assert work.run() == 0


@pytest.mark.parametrize("started", [False, True], ids=["new", "adopting"])
@pytest.mark.parametrize("place", ["task", "schedule", "kv"])
def test_no_row_runs_a_program(work: Work, place: str, started: bool, tmp_path: Path):
    trace = tmp_path / "it ran"
    program = pickle.dumps(Program(f"touch '{trace}'"))
    storage = work.queue.storage
    if place == "task":
        work.add_row(program)
    elif place == "schedule":
        storage.add_to_schedule(program, datetime(2026, 1, 1))  # noqa: DTZ001
    else:
        for kind in ("rt", "r"):
            key = work.queue._task_key(work.make_report.task_class, kind)
            storage.put_data(key, program)
    if started:
        work.start_worker()
    work.make_report(part=1)
    with suppress(RowRefusedError):
        work.run()
    assert not trace.exists()
    if place == "kv":
        return
    assert work.done == [{"part": 1}]
    assert work.events() == [("sys_job_refused", "it is not signed")]


def signed(work: Work, **given: Any) -> bytes:
    """Return the row of a job as this service writes it."""
    return bytes(work.queue.serialize_task(work.make_report.s(**given)))


def other_key(work: Work) -> bytes:
    stranger = Queue()
    keys = {"new": b"x" * 32}
    stranger.init_app(
        work.app, settings.Testing(database_url="sqlite://", encryption_keys=keys)
    )
    return bytes(
        stranger.serializer.serialize(Message("1", "make_report", args=(), kwargs={}))
    )


REFUSED = {
    "another argument": (
        lambda work: signed(work, part=1).replace(b'"part":1', b'"part":2'),
        "its signature is wrong",
    ),
    "another service's": (other_key, "its signature is wrong"),
    "no signature": (
        lambda work: signed(work, part=1).rpartition(b":")[2],
        "it is not signed",
    ),
    "an unknown key": (
        lambda work: signed(work, part=1).replace(b":new:", b":odd:"),
        "the key that signed it is not in use",
    ),
    "a key that names another": (
        lambda work: signed(work, part=1).replace(b":new:", b":old:"),
        "its signature is wrong",
    ),
    "no job": (
        lambda work: work.queue.serializer.serialize([1]),
        "it is not a job",
    ),
    "no job of this release": (
        lambda work: signed(work, part=1) and _unknown(work),
        "this release has no job with its name",
    ),
    "nothing": (lambda _: b"", "it is not signed"),
    "noise": (lambda _: bytes(range(256)), "it is not signed"),
    "old noise": (lambda _: b"\x80\x05" + bytes(range(256)), "it is not signed"),
}


def _unknown(work: Work) -> bytes:
    message = Message("1", "app.gone.queuetask_x", args=(), kwargs={})
    return bytes(work.queue.serializer.serialize(message))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_this_service_did_not_write_is_refused_and_recorded(work: Work, kind: str):
    make, reason = REFUSED[kind]
    work.start_worker()
    work.add_row(make(work))
    work.make_report(part=3)
    assert work.run() == 1
    assert work.done == [{"part": 3}]
    assert work.events() == [("sys_job_refused", reason)]


def test_the_worker_goes_on_when_the_refusal_can_t_be_recorded(
    work: Work, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("bulwark.ops.worker.events.record", fail)
    work.add_row(b"noise")
    work.make_report(part=1)
    assert work.run() == 1


# --- Keys that change -----------------------------------------------------------------


def test_a_row_of_an_older_key_is_run_and_one_of_a_key_that_went_is_not(work: Work):
    work.restart({"old": KEYS["old"]})
    work.make_report(part=1)
    work.restart(KEYS)
    assert work.run() == 1
    work.make_report(part=2)
    work.restart({"next": b"x" * 32})
    assert work.run() == 0
    assert work.events() == [
        ("sys_job_refused", "the key that signed it is not in use")
    ]


def test_after_a_restart_the_newest_key_signs_what_waits(work: Work):
    work.restart({"old": KEYS["old"]})
    work.make_report(part=1)
    work.queue.add_schedule(work.make_report.s(part=2))
    work.restart(KEYS)
    work.start_worker()
    work.restart({"new": KEYS["new"]})
    assert work.run() == 2
    assert work.events() == []


# --- Jobs that were queued by the release that signed no rows -------------------------


def test_jobs_of_before_survive_the_update(work: Work):
    values = {name: value for name, value in VALUES.items() if name != "text"}
    work.add_as_before(**values)
    work.add_as_before(delay=-1, part=2)
    work.start_worker()
    assert work.run() == 2
    assert {"part": 2} in work.done
    assert values in work.done
    assert work.events() == [("sys_jobs_adopted", None)]


def test_a_job_of_before_that_is_due_in_a_month_survives(work: Work):
    work.add_as_before(delay=30 * 86400, part=1)
    work.start_worker()
    work.restart(KEYS)  # which takes no more rows of before
    (data,) = work.queue.storage.scheduled_items()
    assert work.queue.deserialize_task(bytes(data)).kwargs == {"part": 1}


def test_what_was_revoked_before_stays_so(work: Work):
    original, work.queue.serializer = work.queue.serializer, Serializer()
    work.make_report.revoke()
    work.queue.serializer = original
    work.start_worker()
    work.make_report(part=1)
    work.run()
    assert work.done == []


def test_what_the_release_before_still_adds_is_taken_for_an_hour(
    work: Work, monkeypatch: pytest.MonkeyPatch
):
    work.start_worker()
    work.add_as_before(part=1)
    assert work.run() == 1
    with work.app.app_context():
        work.queue.put(SIGNED_SINCE, datetime.now(UTC) - OLD_ROWS)
    work.restart(KEYS)
    work.start_worker()
    work.add_as_before(part=2)
    assert work.run() == 0
    assert work.events() == [("sys_job_refused", "it is not signed")]


def test_a_row_of_before_with_an_object_is_refused(work: Work):
    work.add_as_before(path=Path("/"))
    work.start_worker()
    assert work.run() == 0
    assert work.events() == [("sys_job_refused", "it is not signed")]


def test_a_row_of_before_can_t_grow_without_end(work: Work):
    many: list[Any] = []
    for _ in range(40):
        many = [many, many]
    work.add_as_before(many=many)
    work.start_worker()
    assert work.run() == 0


# --- What the database remembers for the overview -------------------------------------


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 100_000, b"never", b"{}}"])
def test_what_is_remembered_and_can_t_be_read_counts_as_forgotten(
    app: Flask, text: bytes
):
    with app.app_context():
        queue.storage.put_data(b"a fact", text)
        assert state.recall_time("a fact") is None
        assert state.recall("a fact") is None


def test_the_queue_is_where_the_data_is(work: Work):
    on_postgresql = os.environ.get("APP_DATABASE_URL", "").startswith("postgres")
    assert isinstance(work.queue.storage, PostgresStorage) == on_postgresql


# As rows of the queue name them: a job may move, but rows that wait must find it.
JOBS_OF_THE_FIRST_RELEASE = """
bulwark.audit.anchor_audit_trail bulwark.audit.check_audit_trail
bulwark.audit.check_new_audit_rows bulwark.audit.prune_audit_trail
bulwark.identity.addresses.forget_address_changes
bulwark.identity.devices.forget_old_devices
bulwark.identity.sessions.forget_ended_sessions
bulwark.identity.tokens.forget_ended_tokens bulwark.jobs.show_sign_of_life
bulwark.limits.forget_old_guesses bulwark.mail.deliver_mail
bulwark.mail.deliver_waiting_mail bulwark.watch.count_server_errors
bulwark.watch.look_at_certificate
"""


@pytest.mark.parametrize("name", JOBS_OF_THE_FIRST_RELEASE.split())
def test_a_row_finds_a_job_that_moved_to_another_module(app: Flask, name: str):
    message = Message("1", name, args=(), kwargs={})
    task = queue.deserialize_task(queue.serializer.serialize(message))
    assert task.name == name.rpartition(".")[2]
