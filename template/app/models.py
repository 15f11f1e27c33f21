"""Your models, and your columns on the user. After a change: bin/flask db migrate."""

from bulwark import BaseUser


class User(BaseUser):
    """A user with an account. Add columns and relationships here."""
