"""Sets up the base for an app: each room in its order."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask

from bulwark import account, admin, audit, database, jobs, mail, uploads
from bulwark.audit.catalogue import CATALOGUE
from bulwark.database import db, migrations
from bulwark.identity import setup as identity
from bulwark.identity.models import BaseUser
from bulwark.identity.sign_up_options import SignUp
from bulwark.observability import logging, metrics
from bulwark.ops import setup as ops
from bulwark.settings import Config
from bulwark.web import access, before_request, overrides
from bulwark.web import setup as web


def init_app(
    app: Flask,
    config: Config,
    own: Any,
    user_model: type[BaseUser],
    *,
    permissions: Mapping[str, str],
    roles: Mapping[str, Sequence[str]],
    everyone: Sequence[str],
    sign_up: SignUp,
    csp_sources: Mapping[str, Sequence[str]],
    promises: Mapping[str, str],
) -> None:
    """Set up the rooms; the arguments are those of `bulwark.init_app`."""
    database.init_app(app, config)
    migrations.init_app(app, db)
    logging.init_app(config, own, db.metadata)
    metrics.init_app(app, config, CATALOGUE, database.pool_of(app))
    jobs.init_app(app, config)
    mail.init_app(config)
    audit.init_app(app, config, promises)
    web.init_app(app, config, csp_sources)
    uploads.init_app(app, config)
    identity.init_app(app, config, user_model, roles, sign_up)
    ops.init_app(app)
    account.init_app(app)
    admin.init_app(app)
    access.init_app(app, permissions, roles, everyone)  # checks every route
    before_request.join(app)
    overrides.init_app(app)  # checks the templates that replace one of the base
