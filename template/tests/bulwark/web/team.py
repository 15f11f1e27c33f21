"""A team's views, whose requests the base validates."""

from typing import Any

from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Boolean, Column, Integer, MetaData, String, Table, insert, select
from werkzeug.test import TestResponse

from bulwark.database import db
from bulwark.web.access import public
from bulwark.web.body_limits import body_limit
from bulwark.web.json_body import json_object
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
    """Store what was sent as it is, as the first version of a team's view does."""
    sent: Any = request.get_json() if request.is_json else request.values
    keys = sent.keys() & {"title", "stars", "open", "shelf"}
    db.session.execute(insert(notes).values({key: sent[key] for key in keys}))
    db.session.commit()
    return jsonify(title=sent.get("title"))


@blueprint.get("/notes/pages/<int:first>")
@public
def pages(first: int) -> ResponseReturnValue:
    """Calculate an offset, as `db.paginate` does."""
    page = request.args.get("page", first, int)
    rows = db.session.execute(select(notes).offset(10 * page)).all()
    return jsonify(len(rows))


@blueprint.post("/notes/too-long")
@public
def too_long() -> ResponseReturnValue:
    db.session.execute(insert(notes).values(title="x" * 201, stars=10**20))
    return ""


@blueprint.post("/notes/required")
@public
def required() -> ResponseReturnValue:
    """Store null in a required column, whatever the request contains."""
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
@body_limit("3 MiB")
def add_photo() -> ResponseReturnValue:
    photo = request.files["photo"]
    return jsonify(name=photo.filename, size=len(photo.read()))


@blueprint.post("/drafts")
@public
def draft() -> ResponseReturnValue:
    return jsonify(fields=len(request.form), files=len(request.files))


def post(visitor: Visitor, path: str, **options: Any) -> TestResponse:
    """Post with the CSRF token of a page, as a script of that page does."""
    headers = {
        "X-CSRFToken": visitor.csrf_token("/reset"),
        "Referer": "https://localhost/",
        "Accept": "application/json",
    }
    return visitor.client.post(path, headers=headers, **options)


def hint(response: TestResponse) -> str:
    """Return the reason of a 400."""
    assert response.status_code == 400, response.text
    return str(response.get_json()["hint"])


def parts(*lines: str) -> dict[str, Any]:
    body = "\r\n".join(
        f"--x\r\nContent-Disposition: form-data; {line}" for line in lines
    )
    kind = "multipart/form-data; boundary=x"
    return {"data": f"{body}\r\n--x--\r\n".encode(), "content_type": kind}
