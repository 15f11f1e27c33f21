"""Your part of the service. `bulwark/` is the base; updates never touch this folder."""

from flask import Flask

import bulwark
from app import permissions, settings, views
from app.models import User


def create_app() -> Flask:
    """Create the app: register your blueprints, then set up the base."""
    app = Flask(__name__)
    app.register_blueprint(views.blueprint)
    bulwark.init_app(
        app,
        user_model=User,
        settings=settings.Settings,
        permissions=permissions.PERMISSIONS,
        roles=permissions.ROLES,
        csp_sources=settings.CSP_SOURCES,
    )
    return app
