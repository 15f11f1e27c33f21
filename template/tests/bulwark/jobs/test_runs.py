"""Runs of jobs: they survive what goes wrong, and only their owner sees them."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from bulwark.audit.events import SecurityEvent
from bulwark.database import db, utcnow
from bulwark.jobs import queue, runner, runs, state
from bulwark.jobs.definitions import JOBS, Current, current_run, job
from bulwark.jobs.rows import ARGUMENTS_LENGTH, ArgumentError
from bulwark.jobs.runs import JobRun
from tests.beginnings import signed_in
from tests.bulwark.conftest import Written
from tests.conftest import RunJobs, Visitor, add_person
from tests.support import find_user


class Given(list[Any]):
    """What the jobs of these tests were given, and how they fail."""

    error: BaseException | None = None
    counted: tuple[int, int] | None = None


given = Given()


@job("test_note", retries=2)
def note(*args: Any, **kwargs: Any) -> None:
    given.append((args, kwargs))
    if given.counted:
        job.progress(*given.counted)
    if given.error:
        raise given.error


@job("test_nightly", schedule="30 4 * * *")
def nightly() -> None:
    note.function()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    given.clear()
    given.error = given.counted = None


def add(app: Flask, *args: Any, **kwargs: Any) -> str:
    """Queue a run; return its id."""
    with app.app_context():
        run_id = note(*args, **kwargs).id
        db.session.commit()
    return run_id


def find(app: Flask, run_id: str) -> JobRun:
    with app.app_context():
        return db.session.get_one(JobRun, run_id)


def change(app: Flask, run_id: str, **values: Any) -> None:
    with app.app_context():
        db.session.execute(update(JobRun).where(JobRun.id == run_id).values(**values))
        db.session.commit()


def fail_for_good(
    app: Flask, run_jobs: RunJobs, *args: Any, error: BaseException | None = None
) -> str:
    """Let a run fail at its last try; return its id."""
    given.error = error or ValueError("the disk is full")
    run_id = add(app, *args)
    for _ in range(3):
        change(app, run_id, due_at=utcnow())
        run_jobs()
    given.error = None
    assert find(app, run_id).has_failed
    return run_id


# --- Adding and running ---------------------------------------------------------------


def test_a_job_starts_after_the_commit_and_never_after_a_rollback(
    app: Flask, run_jobs: RunJobs
):
    with app.app_context():
        note(1)
        db.session.rollback()
        note(2, when=utcnow().date())
        assert queue.pending_count() == 0
        db.session.commit()
        assert queue.pending_count() == 1
    run_jobs()
    assert given == [((2,), {"when": utcnow().date()})]


def test_a_run_that_is_done_keeps_no_arguments(app: Flask, run_jobs: RunJobs):
    run_id = add(app, "zoe@example.org")
    with app.app_context():
        sealed = db.session.execute(db.text("SELECT arguments FROM background_runs"))
        assert b"zoe" not in bytes(sealed.scalar_one())
    run_jobs()
    run = find(app, run_id)
    with app.app_context():
        assert run.is_done
        assert db.session.get_one(JobRun, run_id).arguments is None


def test_arguments_that_no_row_can_hold_are_refused_where_they_are_queued(app: Flask):
    with app.app_context():
        with pytest.raises(ArgumentError, match=r"test_note: argument 1 .*Pass None"):
            note(object())
        with pytest.raises(ArgumentError, match="pass the id of its row"):
            note("x" * ARGUMENTS_LENGTH)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"schedule": "each night"}, "it has 2 fields"),
        ({"schedule": "99 4 * * *"}, "not a schedule"),
        ({"name": "test_note"}, "two jobs with the name test_note"),
        ({"name": "a b"}, "letters, digits and _"),
        ({"retries": -1}, "retries is -1"),
        ({"time_limit": 0}, "time_limit is 0"),
    ],
)
def test_a_job_that_can_t_work_is_refused_with_the_reason(options: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        job(**{"name": "test_wrong", **options})(lambda: None)
    assert "test_wrong" not in JOBS


# --- Retries --------------------------------------------------------------------------


def test_a_job_that_failed_is_tried_again_later_with_the_same_arguments(
    app: Flask, written: Written, run_jobs: RunJobs
):
    given.error = ValueError("busy")
    run_id = add(app, 1)
    run_jobs()
    run_jobs()  # not due yet
    assert given == [((1,), {})]
    assert find(app, run_id).error == "ValueError: busy"
    given.error = None
    change(app, run_id, due_at=utcnow())
    run_jobs()
    assert given == [((1,), {})] * 2
    assert find(app, run_id).is_done
    (line,) = [line for line in written.lines() if line["event"] == "sys_error"]
    assert line["job"] == "test_note"
    assert "exception" in line


def test_waits_double_up_to_an_hour_and_are_never_all_equal():
    for tries, longest in ((1, 10), (2, 20), (5, 160), (10, 3600), (1000, 3600)):
        waits = {runs.wait_before(tries).total_seconds() for _ in range(50)}
        assert len(waits) > 1
        assert longest / 2 <= min(waits) <= max(waits) <= longest


def test_after_the_last_try_a_run_stays_with_its_error_redacted(
    app: Flask, written: Written, run_jobs: RunJobs
):
    key = app.config["SECRET_KEY"]
    error = ValueError(f"{key} of zoe@example.org\nat postgresql://me:pw12345@host/db")
    run_id = fail_for_good(app, run_jobs, error=error)
    stored = find(app, run_id).error or ""
    assert len(given) == 3
    assert stored.startswith("ValueError: [redacted] of [address] at postgresql://")
    assert not [word for word in (key, "zoe", "pw12345") if word in stored]
    failed = [line for line in written.lines() if line["event"] == "sys_job_failed"]
    assert [line["job"] for line in failed] == ["test_note"]


def test_a_very_long_error_is_cut(app: Flask, run_jobs: RunJobs):
    assert (
        len(
            find(app, fail_for_good(app, run_jobs, error=OSError("x" * 9999))).error
            or ""
        )
        == 500
    )


def test_a_job_that_exits_fails_like_any_other(app: Flask, run_jobs: RunJobs):
    assert "SystemExit" in (
        find(app, fail_for_good(app, run_jobs, error=SystemExit(0))).error or ""
    )


# --- Workers that are killed ----------------------------------------------------------


def test_a_run_whose_worker_was_killed_is_tried_again(app: Flask):
    run_id = add(app)
    with app.app_context():
        assert runs.claim() is not None  # and then the worker is killed
        runner._run_each_minute.call_local()
        assert db.session.get_one(JobRun, run_id).state == runs.RUNNING
        long_ago = (utcnow() - runs.LOST_AFTER).isoformat()
        queue.storage.put_data(runs._seen_key(run_id).encode(), long_ago.encode())
        change(app, run_id, started_at=utcnow() - timedelta(minutes=3))
        runner._run_each_minute.call_local()
    run = find(app, run_id)
    assert (run.state, run.error, given) == (runs.WAITING, runs.LOST, [])


def test_a_long_run_whose_worker_is_alive_goes_on(app: Flask):
    run_id = add(app)
    with app.app_context():
        assert runs.claim() is not None
        change(app, run_id, started_at=utcnow() - timedelta(hours=3))
        runs.saw(run_id)
        assert runs.lost() == []


def test_a_run_that_was_killed_at_its_last_try_has_failed(app: Flask):
    run_id = add(app)
    change(app, run_id, tries=2)
    with app.app_context():
        assert runs.claim() is not None
        runner._end(run_id, 3, runs.LOST, retries=2)
    assert find(app, run_id).has_failed


def test_a_worker_that_was_taken_for_lost_can_t_end_the_next_try(app: Flask):
    run_id = add(app)
    with app.app_context():
        assert runs.claim() is not None
        assert runs.end(run_id, 2, "", 2) is None
    assert find(app, run_id).state == runs.RUNNING


def test_no_run_is_claimed_twice(app: Flask):
    add(app)
    with app.app_context():
        assert runs.claim() is not None
        assert runs.claim() is None


def test_a_run_that_was_changed_in_the_database_fails_and_the_others_go_on(
    app: Flask, run_jobs: RunJobs
):
    changed = add(app, 1)
    change(app, changed, tries=2)
    with app.app_context():
        db.session.execute(
            db.text("UPDATE background_runs SET arguments = :other"),
            {"other": b"1:" + bytes(60)},
        )
        db.session.commit()
    add(app, 2)
    run_jobs()
    assert given == [((2,), {})]
    assert "DecryptionError" in (find(app, changed).error or "")


def test_a_run_of_a_job_that_a_release_removed_fails_with_the_reason(
    app: Flask, monkeypatch: pytest.MonkeyPatch, run_jobs: RunJobs
):
    run_id = add(app)
    monkeypatch.delitem(JOBS, "test_note")
    run_jobs()
    run = find(app, run_id)
    assert (run.has_failed, run.error) == (
        True,
        "This release has no job with the name test_note.",
    )


# --- Schedules ------------------------------------------------------------------------


def scheduled(app: Flask) -> list[JobRun]:
    with app.app_context():
        found = select(JobRun).where(JobRun.is_scheduled).order_by(JobRun.created_at)
        return list(db.session.scalars(found))


def test_a_schedule_adds_one_run_however_many_workers_there_are(
    app: Flask, run_jobs: RunJobs
):
    with app.app_context():
        runs.add_scheduled("test_nightly")
        run_jobs()
        runs.add_scheduled("test_nightly")
    assert [run.state for run in scheduled(app)] == [runs.DONE]
    assert len(given) == 1


def test_a_schedule_adds_no_run_while_one_is_in_progress(
    app: Flask, monkeypatch: pytest.MonkeyPatch
):
    with app.app_context():
        runs.add_scheduled("test_nightly")
        tomorrow = utcnow() + timedelta(days=1)
        monkeypatch.setattr(runs, "utcnow", lambda: tomorrow)
        runs.add_scheduled("test_nightly")
    assert len(scheduled(app)) == 1


def test_a_schedule_is_due_at_its_time_only(app: Flask):
    task = queue._registry.string_to_task(
        "bulwark.jobs.definitions.schedule_test_nightly"
    )
    at = utcnow().replace(hour=4, minute=30)
    assert task().validate_datetime(at)
    assert not task().validate_datetime(at + timedelta(minutes=1))


def test_of_a_schedule_only_the_last_failure_stays_and_none_after_a_success(
    app: Flask, monkeypatch: pytest.MonkeyPatch, run_jobs: RunJobs
):
    now = utcnow()
    given.error = ValueError()
    for night in range(3):
        monkeypatch.setattr(runs, "utcnow", lambda n=night: now + timedelta(days=n))
        with app.app_context():
            runs.add_scheduled("test_nightly")
        run_jobs()
        assert [run.state for run in scheduled(app)] == [runs.FAILED]
    given.error = None
    monkeypatch.setattr(runs, "utcnow", lambda: now + timedelta(days=3))
    with app.app_context():
        runs.add_scheduled("test_nightly")
    run_jobs()
    assert [run.state for run in scheduled(app)] == [runs.DONE]


def test_old_runs_are_deleted(app: Flask, run_jobs: RunJobs):
    done = add(app)
    run_jobs()
    failed = fail_for_good(app, run_jobs)
    for run_id, days in ((done, 1), (failed, 90)):
        change(app, run_id, finished_at=utcnow() - timedelta(days=days, minutes=-1))
        with app.app_context():
            runs.forget_old()
            assert db.session.get(JobRun, run_id) is not None
        change(app, run_id, finished_at=utcnow() - timedelta(days=days, minutes=1))
        with app.app_context():
            runs.forget_old()
            assert db.session.get(JobRun, run_id) is None


# --- Progress -------------------------------------------------------------------------


def test_only_the_user_who_queued_a_job_sees_its_progress(
    app: Flask, visitor: Visitor, other_visitor: Visitor, person: str, run_jobs: RunJobs
):
    visitor.sign_in(person)
    other_visitor.sign_in(add_person(app, "ada@example.org"))
    given.counted, given.error = (3, 10), ValueError()
    run_id = add(app)
    path = f"/account/jobs/{run_id}"
    assert visitor.get(path).status_code == 404  # nobody's
    with app.app_context():
        change(app, run_id, owner_id=find_user(app, person).id)
    run_jobs()
    answer = visitor.get(path)
    assert answer.json == {"id": run_id, "state": "waiting", "done": 3, "of": 10}
    assert other_visitor.get(path).status_code == 404
    assert visitor.get(f"/account/jobs/{uuid.uuid4()}").status_code == 404


def test_a_request_s_run_belongs_to_its_user_and_is_committed_with_it(app: Flask):
    with app.test_request_context():
        app.preprocess_request()
        run_id = note().id
        app.process_response(app.response_class())
    assert find(app, run_id).owner_id is None


@pytest.mark.parametrize(
    "text", [b"[]", b"{}", b'["a", 1]', b"[true, 1]", b"[1, 2, 3]"]
)
def test_a_progress_that_someone_wrote_into_the_database_counts_as_none(
    app: Flask, text: bytes
):
    run_id = add(app)
    with app.app_context():
        queue.storage.put_data(runs._progress_key(run_id).encode(), text)
        assert db.session.get_one(JobRun, run_id).progress is None


def test_reports_are_stored_twice_a_second_at_most(monkeypatch: pytest.MonkeyPatch):
    stored: list[Any] = []
    monkeypatch.setattr(state, "remember", lambda *report: stored.append(report))
    token = current_run.set(Current("a run"))
    for number in range(1, 1001):
        job.progress(number, 1000)
    current_run.reset(token)
    assert [numbers for _, numbers in stored] == [[1, 1000], [1000, 1000]]


# --- Failed jobs in the administration pages ------------------------------------------


def events_of(app: Flask, *names: str) -> list[tuple[str, str | None, Any]]:
    with app.app_context():
        query = select(SecurityEvent).where(SecurityEvent.name.in_(names))
        return [(e.name, e.reason, e.details) for e in db.session.scalars(query)]


def test_an_administrator_retries_a_failed_job(
    app: Flask, ada: Visitor, run_jobs: RunJobs
):
    run_id = fail_for_good(app, run_jobs, "a", 2)
    given.clear()
    page = ada.get("/admin/jobs").text
    assert "test_note" in page
    assert "ValueError: the disk is full" in page
    assert "[&#34;a&#34;, 2, {}]" in ada.get(f"/admin/jobs/{run_id}").text
    path = f"/admin/jobs/{run_id}/retry"
    assert "Enter a reason" in ada.submit(path, {"reason": ""}).text
    assert ada.submit(path, {"reason": "there is space"}).status_code == 302
    run_jobs()
    assert given == [(("a", 2), {})]
    assert ada.get(path).status_code == 404
    assert events_of(app, "sys_job_retried") == [
        ("sys_job_retried", "there is space", {"job": "test_note"})
    ]


def test_an_administrator_discards_a_failed_job(
    app: Flask, ada: Visitor, run_jobs: RunJobs
):
    run_id = fail_for_good(app, run_jobs)
    path = f"/admin/jobs/{run_id}/discard"
    assert ada.submit(path, {"reason": "not needed"}).status_code == 302
    assert "No job has failed" in ada.get("/admin/jobs").text
    assert [name for name, _, _ in events_of(app, "sys_job_discarded")]


def test_arguments_are_shown_to_those_who_may_retry_only(
    app: Flask, visitor: Visitor, run_jobs: RunJobs
):
    with app.app_context():
        security = app.extensions["security"]
        security.datastore.create_role(name="viewer", permissions=["failed_jobs:read"])
        db.session.commit()
    run_id = fail_for_good(app, run_jobs, "zoe's order")
    viewer = signed_in(visitor, "vic@example.org", "viewer")
    page = viewer.get(f"/admin/jobs/{run_id}")
    assert page.status_code == 200
    assert "order" not in page.text
    assert viewer.get(f"/admin/jobs/{run_id}/retry").status_code == 403


def test_long_arguments_and_markup_in_them_do_no_harm(
    app: Flask, ada: Visitor, run_jobs: RunJobs
):
    page = ada.get(
        f"/admin/jobs/{fail_for_good(app, run_jobs, '<script>' * 1000)}"
    ).text
    assert "<script>&" not in page
    assert page.count("&lt;script&gt;") < 300


def test_two_administrators_retry_a_job_once(app: Flask, run_jobs: RunJobs):
    run_id = fail_for_good(app, run_jobs)
    with app.app_context():
        run = db.session.get_one(JobRun, run_id)
        assert runs.retry(run)
        assert not runs.retry(run)
        assert not runs.discard(run)
        db.session.commit()
