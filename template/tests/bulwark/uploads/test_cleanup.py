"""The daily clean-up deletes files that no row refers to, and no others."""

import fcntl
import os
import time
from pathlib import Path

import pytest
from flask import Flask

from bulwark.database import db
from bulwark.uploads import cleanup
from tests.bulwark.uploads.conftest import Owner, names_in
from tests.bulwark.uploads.team import Paper

DAY = 24 * 60 * 60


def make_older(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - DAY - 60,) * 2)


def clean_up(app: Flask) -> None:
    with app.app_context():
        cleanup.delete_unused.call_local()


def test_the_file_of_a_deleted_row_goes(owner: Owner, team_app: Flask, papers: Path):
    gone, kept = owner.keep("a.txt", b"a"), owner.keep("b.txt", b"b")
    with team_app.app_context():
        db.session.delete(db.session.get_one(Paper, gone))
        db.session.commit()
    clean_up(team_app)
    assert len(names_in(papers)) == 2  # a new file may still get its row
    make_older(papers)
    clean_up(team_app)
    assert len(names_in(papers)) == 1
    assert owner.get(kept).data == b"b"


def test_the_file_of_a_request_that_failed_goes(
    owner: Owner, team_app: Flask, papers: Path
):
    assert owner.send(("a.txt", b"a"), path="/papers/failing").status_code == 200
    assert len(names_in(papers)) == 1
    make_older(papers)
    clean_up(team_app)
    assert names_in(papers) == []


def test_nothing_goes_while_a_backup_is_written(
    owner: Owner, team_app: Flask, papers: Path
):
    owner.send(("a.txt", b"a"), path="/papers/failing")
    make_older(papers)
    with team_app.app_context(), cleanup.lock(fcntl.LOCK_SH):
        clean_up(team_app)
    assert len(names_in(papers)) == 1


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_goes_if_the_rows_are_not_those_of_the_files(
    owner: Owner,
    team_app: Flask,
    papers: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
):
    """Such as when the service is connected to another database."""
    monkeypatch.setattr(cleanup, "FEW", 1)
    for _ in range(rows):
        owner.keep("x.txt", b"x")
        papers.joinpath(*next(papers.glob("??/*")).parts[-2:]).unlink()
    for name in ("a.txt", "b.txt"):
        owner.send((name, b"a"), path="/papers/failing")
    make_older(papers)
    clean_up(team_app)
    assert len(names_in(papers)) == 2


def test_a_user_who_leaves_many_files_does_not_stop_the_clean_up(
    owner: Owner, team_app: Flask, papers: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cleanup, "FEW", 1)
    owner.keep("x.txt", b"x")
    for name in ("a.txt", "b.txt", "c.txt"):
        owner.send((name, b"a"), path="/papers/failing")
    make_older(papers)
    clean_up(team_app)
    assert len(names_in(papers)) == 1


def test_a_service_without_uploads_deletes_nothing(
    owner: Owner, team_app: Flask, papers: Path, monkeypatch: pytest.MonkeyPatch
):
    owner.send(("a.txt", b"a"), path="/papers/failing")
    make_older(papers)
    monkeypatch.setattr(cleanup, "models", list)
    clean_up(team_app)
    assert len(names_in(papers)) == 1
