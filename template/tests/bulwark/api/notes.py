"""The API of a team: notes."""

from datetime import datetime
from typing import Annotated, Literal

from flask import abort
from pydantic import BaseModel, Field
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, update
from sqlalchemy.orm import Mapped, registry

from bulwark import (
    Api,
    Page,
    body_limit,
    check_match,
    limit,
    paginate,
    permission,
    public,
    recent,
    signed_in,
)
from bulwark.database import UTCDateTime, db, utcnow

# Apart from the service's models, which the migrations must match.
rows = Table(
    "notes_of_the_api",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("title", String(200), nullable=False),
    Column("stars", Integer, nullable=False),
    Column("at", UTCDateTime, nullable=False, default=utcnow),
)


class Row:
    """A row of the table."""

    id: Mapped[int]
    title: Mapped[str]
    stars: Mapped[int]
    at: Mapped[datetime]


registry().map_imperatively(Row, rows)
PERMISSIONS = {
    "notes:read": "Read notes",
    "notes:write": "Write notes",
    "notes:erase": "Erase notes",
}
EVERYONE = ["notes:read", "notes:write"]

api = Api("notes", __name__, url_prefix="/api/v1", title="Notes", limit="20 per minute")
teams = Api(
    "teams",
    __name__,
    url_prefix="/teams/<team>/api",
    title="Teams",
    documentation=public,
)
NoteId = Annotated[int, Field(ge=1, le=2**31 - 1)]


class NewNote(BaseModel):
    """A note to add."""

    title: str = Field(min_length=1, max_length=200)
    stars: int = Field(0, ge=0, le=5)
    due: datetime | None = None


class Note(BaseModel):
    """A note."""

    id: NoteId
    title: str
    stars: int


class Search(BaseModel):
    """What to search for."""

    stars: list[int] = []
    least: int = Field(0, ge=0)
    titles: list[str] | None = Field(None, validation_alias="title")


@api.get("/notes")
@permission("notes:read")
def find(query: Search) -> list[Note]:
    """List notes."""
    found = select(rows).where(rows.c.stars >= query.least)
    if query.stars:
        found = found.where(rows.c.stars.in_(query.stars))
    if query.titles:
        found = found.where(rows.c.title.in_(query.titles))
    return [Note(**row) for row in db.session.execute(found).mappings()]


@api.post("/notes", status=201)
@permission("notes:write")
def add(body: NewNote) -> Note:
    """Add a note."""
    new = insert(rows).values(title=body.title, stars=body.stars).returning(rows)
    note = Note(**db.session.execute(new).mappings().one())
    db.session.commit()
    return note


@api.get("/notes/<int:note_id>")
@permission("notes:read")
def one(note_id: NoteId) -> Note:
    """Return a note."""
    found = db.session.execute(select(rows).where(rows.c.id == note_id))
    row = found.mappings().first()
    return Note(**row) if row else abort(404)


@api.put("/notes/<int:note_id>")
@permission("notes:write")
def replace(note_id: NoteId, body: NewNote) -> Note:
    """Replace a note, unless it changed since the client read it."""
    check_match(one(note_id), required=body.stars == 5)
    new = update(rows).where(rows.c.id == note_id)
    db.session.execute(new.values(title=body.title, stars=body.stars))
    db.session.commit()
    return one(note_id)


@api.get("/pages")
@permission("notes:read")
def pages(query: Page) -> list[Note]:
    """List notes in pages, those with the most stars first."""
    found = paginate(select(Row), query, Row.stars, Row.id, descending=True)
    return [Note(id=row.id, title=row.title, stars=row.stars) for row in found]


@api.get("/pages/<title>")
@permission("notes:read")
def with_title(title: str, query: Page) -> list[int]:
    """List notes with a title in pages."""
    with_title = select(Row).where(Row.title == title)
    return [row.id for row in paginate(with_title, query, Row.id)]


@api.get("/pages/by-time")
@permission("notes:read")
def by_time(query: Page) -> list[Note]:
    """List notes in pages, the oldest first."""
    found = paginate(select(Row), query, Row.at, Row.id)
    return [Note(id=row.id, title=row.title, stars=row.stars) for row in found]


@api.delete("/notes/<int:note_id>")
@permission("notes:erase")
def erase(note_id: NoteId) -> None:
    """Erase a note."""


@api.post("/failing")
@permission("notes:write")
def fail_after_commit() -> None:
    """Add a note, and fail."""
    db.session.execute(insert(rows).values(title="Milk", stars=0))
    db.session.commit()
    raise RuntimeError("after the commit")


@api.post("/forgetful")
@permission("notes:write")
def forget_to_commit() -> None:
    """Add a note, without a commit."""
    db.session.execute(insert(rows).values(title="Milk", stars=0))


@api.post("/public")
@public
def greet() -> None:
    """Respond to visitors."""


@api.post("/notes/<int:note_id>/lock", errors=[409])
@permission("notes:write")
def lock(note_id: NoteId) -> None:
    """Respond with 409."""
    abort(409, "The note is locked already.")


@api.post("/notes/import")
@permission("notes:write")
@limit("2 per hour")
@body_limit(1000)
def bring(body: list[NewNote]) -> None:
    """Import notes."""


class Circle(BaseModel):
    """A circle."""

    kind: Literal["circle"]


class Square(BaseModel):
    """A square."""

    kind: Literal["square"]


@api.put("/shape")
@permission("notes:write")
def draw(body: Annotated[Circle | Square, Field(discriminator="kind")]) -> None:
    """Draw a shape."""


@api.put("/tags")
@permission("notes:write")
def replace_tags(body: list[dict[str, int]]) -> None:
    """Replace tags."""


@api.get("/leak")
@public
def leak() -> Note:
    """Return what was not declared."""
    return {"id": 1, "title": "x", "stars": 1, "secret": 1}  # type: ignore[return-value]


@api.get("/broken")
@public
def broken() -> None:
    """Fail."""
    raise RuntimeError("the key is 4711")


@api.get("/mine")
@signed_in
@recent
def mine() -> list[str]:
    """Return what only the user may see."""
    return ["mine"]


@teams.get("/name")
@permission("notes:read")
def name(team: str) -> str:
    """Return the name of a team."""
    return team
