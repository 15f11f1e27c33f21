"""Files that are sent back: to whom, and how a browser takes them."""

from pathlib import Path

import pytest
from flask import Flask

from bulwark.database import db
from tests.bulwark.uploads.conftest import Owner
from tests.bulwark.uploads.contents import PNG
from tests.bulwark.uploads.team import Paper
from tests.conftest import Visitor


def test_the_owner_gets_the_file_and_nobody_else_does(owner: Owner, stranger: Owner):
    paper = owner.keep("photo.png", PNG)
    assert owner.get(paper).data == PNG
    assert stranger.get(paper).status_code == 404
    assert stranger.get(paper).data != PNG


def test_a_visitor_has_to_sign_in(owner: Owner, team_app: Flask, mailbox: Path):
    paper = owner.keep("photo.png", PNG)
    assert Visitor(team_app, mailbox).get(f"/papers/{paper}").status_code == 302


def test_a_browser_saves_a_file_and_runs_nothing_in_it(owner: Owner):
    headers = owner.get(owner.keep("photo.png", PNG)).headers
    assert headers["Content-Disposition"] == "attachment; filename=photo.png"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "sandbox"} <= set(policy)
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "no-store" in headers["Cache-Control"]
    assert headers["Content-Length"] == str(len(PNG))


@pytest.mark.parametrize(
    ("sent", "header"),
    [
        ("Zoë.txt", "attachment; filename=Zoe.txt; filename*=UTF-8''Zo%C3%AB.txt"),
        ("a b.txt", 'attachment; filename="a b.txt"'),
        ("a;b.txt", 'attachment; filename="a;b.txt"'),
    ],
)
def test_any_name_keeps_the_header_whole(owner: Owner, sent: str, header: str):
    """RFC 6266."""
    response = owner.get(owner.keep(sent, b"x"))
    assert response.headers["Content-Disposition"] == header


def test_a_file_that_is_missing_is_404(owner: Owner, team_app: Flask):
    paper = owner.keep("photo.png", PNG)
    with team_app.app_context():
        row = db.session.get_one(Paper, paper)
        team_app.extensions["uploads"].delete(row.storage_name)
    assert owner.get(paper).status_code == 404
