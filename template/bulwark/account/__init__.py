"""The pages of /account: activity, sessions, second factors and access tokens."""

from flask import Flask

from bulwark.account import views


def init_app(app: Flask) -> None:
    """Register the pages."""
    views.init_app(app)
