"""Lists in pages: each page continues after the last row of the previous one.

Unlike with an offset, the last page takes as long as the first, and no row is skipped
or repeated when others are added or deleted (keyset pagination).
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, after_this_request, json, request
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from sqlalchemy import Select, TypeDecorator, literal, tuple_
from sqlalchemy.exc import DataError, DBAPIError, StatementError
from sqlalchemy.orm import InstrumentedAttribute
from werkzeug.exceptions import NotFound

from bulwark.database import db

LIMIT, MOST = 50, 200
CURSOR = "cursor"
CURSOR_LENGTH = 1024
UNKNOWN = "There is no such page. Follow the link to the next page."


class Page(BaseModel):
    """Which page of a list to return."""

    cursor: str | None = Field(
        None,
        max_length=CURSOR_LENGTH,
        description="Where the page begins: copied from the link to the next page.",
    )
    limit: int = Field(
        LIMIT, ge=1, le=MOST, description="The maximum number of items of the page."
    )


def paginate(
    statement: Select[Any],
    page: Page,
    *keys: InstrumentedAttribute[Any],
    descending: bool = False,
) -> list[Any]:
    """Return the rows of a page, and link to the next page in the header `Link`.

    Args:
        statement: selects the rows that the user may read, in any order.
        page: what the query string asks for.
        keys: the columns to sort by. None of them may be null, and together they are
            unique: end with the primary key.
        descending: whether to begin with the largest values.

    Raises:
        NotFound: the cursor is not from a link to a next page.
    """
    ordered = [key.desc() if descending else key.asc() for key in keys]
    statement = statement.order_by(None).order_by(*ordered)
    if page.cursor is not None:
        after = tuple_(*_values(page.cursor, keys))
        sorted_by = tuple_(*keys)
        statement = statement.where(
            sorted_by < after if descending else sorted_by > after
        )
    more = statement.add_columns(*keys).limit(page.limit + 1)
    try:
        rows = db.session.execute(more).all()
    except StatementError as error:
        is_fault = isinstance(error, DBAPIError) and not isinstance(error, DataError)
        if page.cursor is None or is_fault:
            raise
        db.session.rollback()  # a value of the cursor doesn't fit its column
        raise NotFound(UNKNOWN) from None
    if len(rows) > page.limit:
        _link(page, rows[page.limit - 1][1:], keys)
    return [row[0] for row in rows[: page.limit]]


def _values(cursor: str, keys: tuple[InstrumentedAttribute[Any], ...]) -> list[Any]:
    """Return the values of the keys, each of the type of its column."""
    try:
        # Flask's, which is strict: no value that databases can't store.
        sent = json.loads(urlsafe_b64decode(cursor.encode()))
        pairs = zip(keys, sent, strict=True)
        return [
            literal(_adapter(key).validate_python(value), key.type)
            for key, value in pairs
        ]
    except (ValidationError, ValueError, TypeError, RecursionError):
        raise NotFound(UNKNOWN) from None


def _link(
    page: Page, values: tuple[Any, ...], keys: tuple[InstrumentedAttribute[Any], ...]
) -> None:
    pairs = zip(keys, values, strict=True)
    sent = [_adapter(key).dump_python(value, mode="json") for key, value in pairs]
    cursor = urlsafe_b64encode(json.dumps(sent).encode()).decode()
    others = [(n, v) for n, v in request.args.items(multi=True) if n != CURSOR]
    # request.base_url is decoded, and a ">" would end the link.
    path = quote(request.root_path + request.path)
    query = urlencode([*others, (CURSOR, cursor)])
    url = f"{request.scheme}://{request.host}{path}?{query}"

    @after_this_request
    def add(response: Response) -> Response:
        response.headers.add("Link", f'<{url}>; rel="next"')
        return response


def _adapter(key: InstrumentedAttribute[Any]) -> TypeAdapter[Any]:
    kind = key.type.impl_instance if isinstance(key.type, TypeDecorator) else key.type
    return TypeAdapter(kind.python_type)
