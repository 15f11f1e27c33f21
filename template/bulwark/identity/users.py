"""The app's user model, and the users in the database."""

from flask import current_app
from flask_security import SQLAlchemyUserDatastore

from bulwark.identity.models import BaseUser


def find(email: str) -> BaseUser | None:
    """Return the user with an email address, if any."""
    found: BaseUser | None = datastore().find_user(email=email.lower())  # type: ignore[assignment]
    return found


def model() -> type[BaseUser]:
    """Return the app's user model."""
    user_model: type[BaseUser] = datastore().user_model  # type: ignore[assignment]
    return user_model


def datastore() -> SQLAlchemyUserDatastore:
    """Return Flask-Security's datastore."""
    stored: SQLAlchemyUserDatastore = current_app.extensions["security"].datastore
    return stored
