"""The help desk. `bulwark/` is the base; updates never touch this folder."""

from flask import Flask

import bulwark
from app import (
    api,
    exports,
    organizations,
    permissions,
    settings,
    sign_up,
    tickets,
    views,
)
from app.models import User


def create_app() -> Flask:
    """Create the app: register your blueprints, then set up the base."""
    app = Flask(__name__)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(tickets.blueprint)
    app.register_blueprint(exports.blueprint)
    app.register_blueprint(organizations.blueprint)
    app.register_blueprint(api.api)
    bulwark.init_app(
        app,
        user_model=User,
        settings=settings.Settings,
        permissions=permissions.PERMISSIONS,
        roles=permissions.ROLES,
        sign_up=sign_up.SIGN_UP,
        csp_sources=settings.CSP_SOURCES,
    )
    return app
