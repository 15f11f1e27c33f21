"""Permissions that every user has, and may give to a token, without a role."""

from flask import Flask

from bulwark.web import access_matrix
from bulwark.web.access_matrix import SIGNED_IN, VISITOR
from tests.bulwark.api.conftest import ZOE, Script
from tests.conftest import Visitor, add_person
from tests.support import make_token


def test_a_user_without_a_role_gives_them_to_a_token(notes: Flask, stranger: Visitor):
    stranger.sign_in(add_person(notes, ZOE))
    page = stranger.get("/account/tokens").text
    assert "notes:write" in page
    assert "notes:erase" not in page
    assert "users:read" not in page


def test_a_token_has_those_that_it_was_given_only(notes: Flask, script: Script):
    script.token = make_token(notes, ZOE, "notes:read", "notes:erase")
    assert script.call("GET", "/notes").status_code == 200
    assert script.call("POST", "/notes", json={"title": "x"}).status_code == 403
    assert script.call("DELETE", "/notes/1").status_code == 403


def test_a_visitor_has_none_of_them(stranger: Visitor):
    assert stranger.get("/api/v1/notes").status_code == 401


def test_the_access_matrix_shows_them(notes: Flask):
    allowed = [
        access_matrix.allows(notes, "notes.find", who) for who in (VISITOR, SIGNED_IN)
    ]
    assert allowed == [False, True]
    assert not access_matrix.allows(notes, "notes.erase", SIGNED_IN)
