"""The base of this service. Extend it from `app/`: updates replace this folder.

`app/` uses the names in `__all__` and nothing deeper; `docs/extend.md` explains each.
What is behind them may move with any update.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flask import Flask

from bulwark import settings as base_settings
from bulwark.database import BlindIndex, Encrypted, Model, UTCDateTime, db, utcnow
from bulwark.identity.models import BaseUser
from bulwark.identity.profile import ProfileForm
from bulwark.identity.sign_up_options import SignUp, Terms
from bulwark.jobs import queue
from bulwark.jobs.definitions import job
from bulwark.mail import send as send_email
from bulwark.mail import send_templated as send_templated_email
from bulwark.settings.fields import UnusableError, setting, whole_number, words
from bulwark.uploads.downloads import send_upload
from bulwark.uploads.fields import UploadField
from bulwark.uploads.models import Upload
from bulwark.uploads.receiving import receive_uploads
from bulwark.web.access import permission, public, recent, signed_in
from bulwark.web.body_limits import body_limit
from bulwark.web.embedding import embeds
from bulwark.web.forms import Form
from bulwark.web.job_progress import job_run
from bulwark.web.json_body import json_object
from bulwark.web.rate_limits import limit
from bulwark.web.rich_text import RichText, sanitize_html

if TYPE_CHECKING:
    from bulwark.api import Api, Page, check_match, paginate

__all__ = [
    "Api",
    "BaseUser",
    "BlindIndex",
    "Encrypted",
    "Form",
    "Model",
    "Page",
    "ProfileForm",
    "RichText",
    "SignUp",
    "Terms",
    "UTCDateTime",
    "UnusableError",
    "Upload",
    "UploadField",
    "body_limit",
    "check_match",
    "db",
    "embeds",
    "init_app",
    "job",
    "job_run",
    "json_object",
    "limit",
    "paginate",
    "permission",
    "public",
    "queue",
    "receive_uploads",
    "recent",
    "sanitize_html",
    "send_email",
    "send_templated_email",
    "send_upload",
    "setting",
    "signed_in",
    "utcnow",
    "whole_number",
    "words",
]


def __getattr__(name: str) -> Any:
    """Import the API, and pydantic with it, when a service first uses it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("bulwark.api"), name)


def init_app(
    app: Flask,
    *,
    user_model: type[BaseUser],
    settings: type[Any] | None = None,
    permissions: Mapping[str, str] | None = None,
    roles: Mapping[str, Sequence[str]] | None = None,
    everyone: Sequence[str] = (),
    sign_up: SignUp = SignUp(),  # noqa: B008
    csp_sources: Mapping[str, Sequence[str]] | None = None,
    promises: Mapping[str, str] | None = None,
) -> None:
    """Set up the base for an app whose blueprints are registered.

    Args:
        app: the app; its package contains `templates/` and `migrations/`.
        user_model: your subclass of `BaseUser`, with your columns.
        settings: a dataclass of your settings, read into `app.config`.
        permissions: your permissions, each with a description.
        roles: your roles with their permissions; `flask prepare` creates missing ones.
        everyone: those of your permissions that every user has, even without a role.
        sign_up: who may create an account, and what they enter.
        csp_sources: other hosts that your pages load from, by CSP directive.
        promises: the promises that you give up, each with the reason.

    Raises:
        settings.ConfigurationError: a setting is missing, weak or unknown, or a
            promise is.
        access.UndeclaredAccessError: a route does not declare who may call it.
        sign_up_options.SignUpError: a choice about sign-up can't work.
        overrides.UnknownTemplateError: a template of yours overrides nothing.
    """
    config, own = base_settings.init_app(app, settings)
    # Imported after the settings are accepted, so that a refused start ends sooner.
    from bulwark import setup  # noqa: PLC0415

    setup.init_app(
        app,
        config,
        own,
        user_model,
        permissions=permissions or {},
        roles=roles or {},
        everyone=everyone,
        sign_up=sign_up,
        csp_sources=csp_sources or {},
        promises=promises or {},
    )
