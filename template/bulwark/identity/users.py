"""The app's user model, and the users in the database."""

from flask import current_app
from flask_security import SQLAlchemyUserDatastore
from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import lazyload, selectinload

from bulwark.database import db
from bulwark.identity import peppers
from bulwark.identity.models import BaseUser


def find(email: str) -> BaseUser | None:
    """Return the user with an email address, if any."""
    found: BaseUser | None = datastore().find_user(email=email.lower())  # type: ignore[assignment]
    return found


def hold(fs_uniquifier: str) -> bool:
    """Lock a user's row until the commit; return whether a link to it still works."""
    kind = model()
    held = db.session.execute(
        update(kind)
        .where(kind.fs_uniquifier == fs_uniquifier, kind.active)
        .values(fs_uniquifier=kind.fs_uniquifier)
        .returning(kind.id)
        .execution_options(synchronize_session=False)
    )
    return held.first() is not None


def model() -> type[BaseUser]:
    """Return the app's user model."""
    user_model: type[BaseUser] = datastore().user_model  # type: ignore[assignment]
    return user_model


def query() -> Select[BaseUser]:
    """Return a query of users with their roles and passkeys.

    What the app's model loads eagerly is not loaded: it could be a lot for many users.
    """
    kind = model()
    eager = selectinload(kind.roles), selectinload(kind.webauthn)
    return select(kind).options(lazyload("*"), *eager)


def datastore() -> SQLAlchemyUserDatastore:
    """Return Flask-Security's datastore."""
    stored: SQLAlchemyUserDatastore = current_app.extensions["security"].datastore
    return stored


def count_passwords(generation: int) -> int:
    """Return how many password hashes have the pepper of a generation."""
    password = model().password
    start = peppers.MARK.format("%" if generation == 1 else f"{generation}$%")
    marked = password.like(start)
    condition = password.is_not(None) & ~marked if generation == 1 else marked
    return db.session.scalar(select(func.count()).where(condition)) or 0
