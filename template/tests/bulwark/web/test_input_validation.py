"""Inputs: what a request may hold, in pages of the base and of a team alike."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue
from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    select,
)
from werkzeug.test import TestResponse

import bulwark
from app.models import User
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.web.access import public
from bulwark.web.input_validation import DEPTH, MAX_BODY, body_limit, json_object
from bulwark.web.rate_limits import limit
from tests.conftest import Visitor

MEGABYTE = 1024 * 1024
FORM = "application/x-www-form-urlencoded"

blueprint = Blueprint("team", __name__)
# Apart from the service's models, which the migrations must match.
notes = Table(
    "notes_of_tests",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("title", String(200)),
    Column("stars", Integer),
    Column("open", Boolean),
    Column("shelf", String(20), nullable=False, server_default="top"),
)


@blueprint.get("/notes/<int(signed=True):note_id>")
@public
def note(note_id: int) -> ResponseReturnValue:
    found = db.session.execute(select(notes).where(notes.c.id == note_id)).first()
    return jsonify(title=found.title) if found else abort(404)


@blueprint.get("/temperatures/<float:degrees>")
@public
def temperature(degrees: float) -> ResponseReturnValue:
    return jsonify(degrees)


@blueprint.get("/notes/called/<path:title>")
@public
def called(title: str) -> ResponseReturnValue:
    found = db.session.execute(select(notes).where(notes.c.title == title)).first()
    return jsonify(title=found.title) if found else abort(404)


@blueprint.route("/notes", methods=["GET", "POST"])
@public
def add() -> ResponseReturnValue:
    """Store what was sent as it is, as a team's first version does."""
    sent: Any = request.get_json() if request.is_json else request.values
    keys = sent.keys() & {"title", "stars", "open", "shelf"}
    db.session.execute(insert(notes).values({key: sent[key] for key in keys}))
    db.session.commit()
    return jsonify(title=sent.get("title"))


@blueprint.post("/notes/fault")
@public
def fault() -> ResponseReturnValue:
    db.session.execute(insert(notes).values(title="x" * 201, stars=10**20))
    return ""


@blueprint.post("/notes/forgotten")
@public
def forgotten() -> ResponseReturnValue:
    """Store nothing where something has to be, whatever was sent."""
    db.session.execute(insert(notes).values(title=request.get_data(as_text=True)))
    db.session.execute(insert(notes).values(shelf=None))
    return ""


@blueprint.post("/notes/typed")
@public
def typed() -> ResponseReturnValue:
    return json_object(title=str, stars=int, ratio=float, open=bool, note=str | None)


@blueprint.post("/photos")
@public
@limit("1000 per minute")
@body_limit(3 * MEGABYTE)
def add_photo() -> ResponseReturnValue:
    photo = request.files["photo"]
    return jsonify(name=photo.filename, size=len(photo.read()))


@blueprint.post("/drafts")
@public
def draft() -> ResponseReturnValue:
    return jsonify(fields=len(request.form), files=len(request.files))


@pytest.fixture(scope="module")
def team_app(
    whole_app: Flask, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """A service with the views above, on a database of its own if that is SQLite."""
    url = whole_app.config["SQLALCHEMY_DATABASE_URI"]
    queue.storage.close()
    # The service's own navigation may link to views that are not in this app.
    templates = tmp_path_factory.mktemp("templates")
    (templates / "navigation.html").touch()
    app = Flask("app", template_folder=str(templates))
    app.register_blueprint(blueprint)
    with pytest.MonkeyPatch.context() as patch:
        if url.get_backend_name() == "sqlite":
            folder = tmp_path_factory.mktemp("team")
            patch.setenv("APP_DATABASE_URL", f"sqlite:///{folder}/service.db")
        bulwark.init_app(app, user_model=User)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    with app.app_context():
        db.create_all()
        notes.create(db.engine)
        queue.create_tables()
    yield app
    with app.app_context():
        notes.drop(db.engine)
        db.session.remove()
        db.engine.dispose()
    queue.storage.close()
    queue.init_app(whole_app, whole_app.extensions["bulwark"])


@pytest.fixture
def team(team_app: Flask, mailbox: Path) -> Visitor:
    """A visitor of that service."""
    return Visitor(team_app, mailbox)


def post(visitor: Visitor, path: str, **options: Any) -> TestResponse:
    """Post with the CSRF token of a page, as a script of that page does."""
    headers = {
        "X-CSRFToken": visitor.csrf_token("/reset"),
        "Referer": "https://localhost/",
        "Accept": "application/json",
    }
    return visitor.client.post(path, headers=headers, **options)


def hint(answer: TestResponse) -> str:
    """Return the reason of a 400."""
    assert answer.status_code == 400, answer.text
    return str(answer.get_json()["hint"])


# --- Headers --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/login", "/account", "/nowhere", "/notes/1"])
@pytest.mark.parametrize("header", ["Basic é", "Bearer \xff", "é"])
def test_raw_bytes_in_authorization_are_400(team: Visitor, path: str, header: str):
    answer = team.get(path, headers={"Authorization": header})
    assert hint(answer) == "Send Authorization in ASCII."


@pytest.mark.parametrize("name", ["Referer", "Origin"])
@pytest.mark.parametrize("value", ["https://[x", "https://a:b/", "https://a:99999/"])
def test_a_header_that_is_no_url_is_400(team: Visitor, name: str, value: str):
    answer = team.client.post(
        "/login",
        headers={
            "X-CSRFToken": team.csrf_token("/login"),
            "Accept": "application/json",
            name: value,
        },
    )
    assert hint(answer) == f"{name} is not a URL."


@pytest.mark.parametrize(
    "referrer", ["https://www.example.com/?q=é[", "android-app://com.example/", "null"]
)
def test_a_referrer_of_elsewhere_is_fine(team: Visitor, referrer: str):
    assert team.get("/login", headers={"Referer": referrer}).status_code == 200


def test_a_null_byte_in_a_header_is_400(team: Visitor):
    answer = team.client.get(
        "/login",
        environ_overrides={"HTTP_USER_AGENT": "a\0"},
        headers={"Accept": "application/json"},
    )
    assert hint(answer) == "Send headers without NUL."


def test_another_host_is_refused_before_anything_else_is(team: Visitor):
    answer = team.get("/login?\0", headers={"Host": "other["})
    assert answer.status_code == 400
    assert "does not serve that host name" in answer.text


# --- Query and path -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/notes"])
@pytest.mark.parametrize("query", ["q=%00", "%00", "q=%ff", "q=\xff", "q=%ED%A0%80"])
def test_a_query_that_is_no_text_is_400(team: Visitor, path: str, query: str):
    answer = team.client.get(
        path,
        environ_overrides={"QUERY_STRING": query},
        headers={"Accept": "application/json"},
    )
    assert "text" in hint(answer)


@pytest.mark.parametrize(
    "number", [2**31, 2**63 - 1, 2**63, 10**20, -(2**63) - 1, int("9" * 300)]
)
def test_an_integer_in_a_path_that_no_row_can_have_is_404(team: Visitor, number: int):
    assert team.get(f"/notes/{number}").status_code == 404
    assert team.get("/notes/1").status_code in (200, 404)


def test_an_integer_of_thousands_of_digits_is_404(team: Visitor):
    assert team.get(f"/notes/{'9' * 5000}").status_code == 404


def test_an_infinite_number_in_a_path_is_404(team: Visitor):
    assert team.get("/temperatures/21.5").get_json() == 21.5
    assert team.get(f"/temperatures/{'9' * 400}.0").status_code == 404


def test_a_null_byte_in_a_path_is_404(team: Visitor):
    assert team.get("/notes/called/a%00").status_code == 404
    assert team.get("/nowhere%00").status_code == 404


# --- Forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/notes"])
@pytest.mark.parametrize(
    "body",
    [b"title=%00", b"title\0=1", b"title=\xff", b"title=%ff", b"title=%ed%a0%80"],
)
def test_a_form_that_is_no_text_is_400(team: Visitor, path: str, body: bytes):
    assert "text" in hint(post(team, path, data=body, content_type=FORM))


def parts(*lines: str) -> dict[str, Any]:
    body = "\r\n".join(
        f"--x\r\nContent-Disposition: form-data; {line}" for line in lines
    )
    kind = "multipart/form-data; boundary=x"
    return {"data": f"{body}\r\n--x--\r\n".encode(), "content_type": kind}


@pytest.mark.parametrize("path", ["/login", "/notes", "/drafts"])
@pytest.mark.parametrize(
    "part",
    [
        'name="title"\r\n\r\n\0',
        'name="a\0"\r\n\r\nx',
        'name="f"; filename="\0"\r\n\r\nx',
    ],
)
def test_a_null_byte_in_a_part_is_400(team: Visitor, path: str, part: str):
    assert "text" in hint(post(team, path, **parts(part)))


def test_a_part_without_a_name_is_400(team: Visitor):
    assert "a name" in hint(post(team, "/drafts", **parts("x=y\r\n\r\nx")))


def test_a_filename_is_bounded(team: Visitor):
    good, long = (parts(f'name="f"; filename="{"é" * n}"\r\n\r\nx') for n in (255, 256))
    assert post(team, "/drafts", **good).get_json() == {"fields": 0, "files": 1}
    assert "255 characters" in hint(post(team, "/drafts", **long))


def test_every_other_character_arrives(team: Visitor):
    title = "".join(map(chr, (1, 9, 10, 0x202E, 0xFFFD, 0xFFFF, 0x10FFFF))) + "é<>&"
    assert post(team, "/notes", data={"title": title}).get_json()["title"] == title
    assert post(team, "/notes", json={"title": title}).get_json()["title"] == title


# --- JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/notes", "/account"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (r'{"title": "\u0000"}', "NUL"),
        (r'{"title": "\ud800"}', "surrogates"),
        (r'{"\udfff\ud800": 1}', "surrogates"),
        ('{"title": 1e999}', "infinite"),
        ('{"title": NaN}', "NaN"),
        ('{"title": 9223372036854775808}', "64 bits"),
        ('{"title": ' + "9" * 5000 + "}", "64 bits"),
        ("[" * (DEPTH + 2) + "]" * (DEPTH + 2), "Nest fewer"),
        ('{"a":' * 3000 + "1" + "}" * 3000, "Nest fewer"),
    ],
    ids=range(9),
)
def test_json_that_no_database_stores_is_400_with_a_reason(
    team: Visitor, path: str, body: str, said: str
):
    if path == "/account":
        path = "/account/sessions/end-others"
    answer = post(team, path, data=body, content_type="application/json")
    assert said in hint(answer)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 1.7e308, 0.1])
def test_a_number_that_a_database_stores_is_read(team: Visitor, number: float):
    answer = post(team, "/drafts", json={"a": number})
    assert answer.status_code == 200


def test_json_as_deep_as_it_may_be_is_read(team_app: Flask):
    assert team_app.json.loads("[" * DEPTH + "]" * DEPTH)


TYPED = {"title": "a", "stars": 1, "ratio": 0.5, "open": True, "note": None}


def test_json_of_the_declared_types_is_returned(team: Visitor):
    assert post(team, "/notes/typed", json=TYPED).get_json() == TYPED
    other = {"ratio": 1, "note": "b"}
    more = {"admin": True}
    sent = TYPED | other
    assert post(team, "/notes/typed", json=sent | more).get_json() == sent


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": None}, "Send title as text."),
        ({"title": 5}, "Send title as text."),
        ({"title": ["a"]}, "Send title as text."),
        ({"stars": True}, "Send stars as an integer."),
        ({"stars": 1.5}, "Send stars as an integer."),
        ({"stars": "1"}, "Send stars as an integer."),
        ({"ratio": "1"}, "Send ratio as a number."),
        ({"ratio": False}, "Send ratio as a number."),
        ({"open": 1}, "Send open as true or false."),
        ({"note": {}}, "Send note as text or null."),
    ],
)
def test_json_of_another_shape_is_400(team: Visitor, change: Any, said: str):
    assert hint(post(team, "/notes/typed", json=TYPED | change)) == said


@pytest.mark.parametrize("body", [[], 5, "x", None, [TYPED]])
def test_json_that_is_no_object_is_400(team: Visitor, body: Any):
    sent = {"data": json.dumps(body), "content_type": "application/json"}
    assert hint(post(team, "/notes/typed", **sent)) == "Send a JSON object."


def test_a_field_that_is_left_out_may_have_to_be_there(team: Visitor):
    left_out = {name: value for name, value in TYPED.items() if name != "note"}
    assert post(team, "/notes/typed", json=left_out).get_json() == TYPED
    del left_out["stars"]
    assert "stars" in hint(post(team, "/notes/typed", json=left_out))


# --- What reaches the database --------------------------------------------------------


def is_postgresql(app: Flask) -> bool:
    url: Any = app.config["SQLALCHEMY_DATABASE_URI"]
    return bool(url.get_backend_name() == "postgresql")


@pytest.mark.parametrize(
    "sent",
    [
        {"title": "x" * 201},
        {"title": f"  {'X' * 201}"},
        {"stars": 2**31},
        {"stars": 2**63 - 1},
        {"stars": "many"},
        {"stars": 10**20},
        {"open": "maybe"},
        {"open": 5},
        {"title": {"a": 1}},
        {"stars": [1]},
    ],
    ids=str,
)
def test_a_value_that_a_column_cannot_hold_is_never_a_fault(team: Visitor, sent: Any):
    """SQLite's columns hold more: what they take is no error there."""
    for options in ({"json": sent}, {"data": sent}):
        assert post(team, "/notes", **options).status_code in (200, 400)


def test_a_text_too_long_for_postgresql_is_400(team: Visitor, team_app: Flask):
    answer = post(team, "/notes", data={"title": "x" * 201})
    if is_postgresql(team_app):
        assert hint(answer) == "A value is too long, too large, or of the wrong type."
    else:
        assert answer.status_code == 200
    assert post(team, "/notes", data={"title": "good"}).status_code == 200


def test_a_number_too_large_for_sqlite_is_400(team: Visitor):
    answer = team.get(f"/notes?stars={10**20}", headers={"Accept": "application/json"})
    assert answer.status_code == 200 or "too large" in hint(answer)
    assert post(team, "/notes", json={"title": {"a": 1}}).status_code == 400
    assert post(team, "/notes", json={"open": "maybe"}).status_code == 400


def test_a_value_that_the_request_did_not_bring_stays_a_fault(team: Visitor):
    assert post(team, "/notes/fault", data={"title": "good"}).status_code == 500
    assert post(team, "/notes/fault", data={"title": "y" * 201}).status_code == 500


NULLS: list[Any] = [{"shelf": None}, {"shelf": None, "title": "None"}]


@pytest.mark.parametrize("sent", NULLS, ids=str)
def test_null_where_a_column_needs_a_value_is_400(team: Visitor, sent: Any):
    assert hint(post(team, "/notes", json=sent)) == "Send a value instead of null."
    assert post(team, "/notes", json={"title": None}).status_code == 200


@pytest.mark.parametrize("sent", [{}, {"shelf": "None"}, {"a": ["null"]}, [], 0, None])
def test_null_that_the_request_did_not_bring_stays_a_fault(team: Visitor, sent: Any):
    body = {"data": json.dumps(sent), "content_type": "application/json"}
    assert post(team, "/notes/forgotten", **body).status_code == 500
    assert post(team, "/notes/forgotten", data={"shelf": ""}).status_code == 500


def test_null_inside_what_was_sent_may_be_where_it_came_from(team: Visitor):
    for sent in ({"note": {"place": None}}, [None], [[{"a": [None]}]]):
        answer = post(team, "/notes/forgotten", json=sent)
        assert hint(answer) == "Send a value instead of null."


# --- Sizes ----------------------------------------------------------------------------


def photo(size: int) -> dict[str, Any]:
    return parts('name="photo"; filename="a.jpg"\r\n\r\n' + "x" * size)


def test_a_view_with_a_limit_of_its_own_takes_larger_files(team: Visitor):
    answer = post(team, "/photos", **photo(2 * MEGABYTE))
    assert answer.get_json() == {"name": "a.jpg", "size": 2 * MEGABYTE}


def test_a_file_over_that_limit_is_413(team: Visitor):
    assert post(team, "/photos", **photo(3 * MEGABYTE)).status_code == 413


def test_a_view_without_one_takes_no_more_than_a_form(team: Visitor):
    assert post(team, "/drafts", **photo(2 * MEGABYTE)).status_code == 413
    assert post(team, "/drafts", **photo(MAX_BODY // 2)).status_code == 200


# --- Pages of the base ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/login/passkey", "/verify"])
@pytest.mark.parametrize("place", [1, {}, [[]], True, "https://[x", "\\\\[", "//a:b"])
def test_a_next_that_is_no_url_is_400(
    visitor: Visitor, person: str, path: str, place: Any
):
    if path == "/verify":
        visitor.sign_in(person)
    assert post(visitor, path, json={"next": place}).status_code == 400
    if isinstance(place, str):
        assert post(visitor, path, data={"next": place}).status_code == 400
        assert visitor.get(path, query_string={"next": place}).status_code == 400


@pytest.mark.parametrize("field", ["email", "password", "credential"])
@pytest.mark.parametrize("value", [1, True, {}, [5], [[]], {"a": "b"}, 1.5])
def test_a_field_that_is_no_text_is_400(visitor: Visitor, field: str, value: Any):
    assert post(visitor, "/login", json={field: value}).status_code == 400


@pytest.mark.parametrize("body", ["[]", '[["email", "x"]]', '"x"', "5", "null"])
@pytest.mark.parametrize("path", ["/login", "/account/tokens", "/change-email/stop/x"])
def test_json_for_a_form_is_an_object(visitor: Visitor, path: str, body: str):
    sent = {"data": body, "content_type": "application/json"}
    assert hint(post(visitor, path, **sent)) == "Send a JSON object."
