"""Sessions, stored in the database and revocable; the cookie is a random token.

Anonymous visitors use Flask's signed cookie, so that their page views don't write to
the database. As soon as a session identifies a user, even before the second factor, it
becomes a row. Each step of the sign-in gets a new token.
"""

import hashlib
from typing import Any

from flask import (
    Flask,
    Request,
    Response,
    after_this_request,
    g,
    request,
    request_started,
    session,
)
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask_login import user_logged_in, user_logged_out
from flask_security.utils import set_request_attr
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy.exc import SQLAlchemyError

from bulwark.audit import events
from bulwark.database import db, utcnow
from bulwark.database.outages import roll_back
from bulwark.identity import hashed_tokens, session_store
from bulwark.identity.models import BaseUser
from bulwark.identity.sessions import (
    AUTHENTICATED_AT,
    HALF_SIGNED_IN,
    SIGNED_IN,
    StoredSession,
    UserSession,
)


def init_app(app: Flask) -> None:
    """Store the sessions of users in the database."""
    app.session_interface = DatabaseSessionInterface()
    app.login_manager.user_loader(_load_user)  # type: ignore[attr-defined]
    # It compares the address and browser, which change in legitimate sessions, too.
    app.login_manager.session_protection = None  # type: ignore[attr-defined]
    user_logged_in.connect(_rotate_session, app)
    user_logged_out.connect(_clear_site_data, app)
    request_started.connect(_raise_session_error, app)
    app.before_request(_record_expired)


class DatabaseSessionInterface(SecureCookieSessionInterface):
    """Opens and saves the session of a request."""

    _keys: tuple[Any, Any] | None = None
    _signer: URLSafeTimedSerializer | None = None

    @staticmethod
    def digest_method(string: bytes = b"") -> Any:
        """Return what signs sessions: SHA-256, where Flask takes SHA-1."""
        return hashlib.sha256(string)

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        """Return the signer of cookies; Flask makes a new one for each request."""
        keys = (app.secret_key, app.config["SECRET_KEY_FALLBACKS"])
        if keys != self._keys:
            self._keys, self._signer = keys, super().get_signing_serializer(app)
        return self._signer

    def open_session(  # type: ignore[override]
        self, app: Flask, request: Request
    ) -> SessionMixin | None:
        """Return the session of the cookie, or an empty one."""
        token = request.cookies.get(self.get_cookie_name(app), "")
        if "Authorization" in request.headers:
            # A request with an access token never uses the session of a cookie.
            return self.session_class()
        session: SessionMixin
        if not token:
            session = self.session_class()
        elif "." not in token:
            session = _load(token) or self.session_class()
        else:
            session = super().open_session(app, request) or self.session_class()
            for name in (SIGNED_IN, HALF_SIGNED_IN):
                # Only a row identifies a user: anyone with the secret key could sign
                # these.
                session.pop(name, None)
        _identify(app, session)
        return session

    def save_session(
        self, app: Flask, session: SessionMixin, response: Response
    ) -> None:
        """Save the session, with a new token whenever its privileges change."""
        if session is None or "Authorization" in request.headers:
            return
        if "session_error" in g or g.get("database_down"):
            return  # Don't wait for the database again; the cookie stays.
        old = session.row_id if isinstance(session, StoredSession) else None
        name = session.get(SIGNED_IN) or session.get(HALF_SIGNED_IN)
        if name and old and not g.get("signed_in_now"):
            response.vary.add("Cookie")
            if session.is_reauthenticated or g.get("renew_session"):  # type: ignore[attr-defined]
                self._set_cookie(app, response, session_store.rotate(old, session))
            elif session.modified:
                session_store.save(old, session)
            elif session.stale:  # type: ignore[attr-defined]
                session_store.touch(old, session)
            return
        if old:
            session_store.remove(old)
            session = self.session_class(session)
            session.modified = True
        if not name:
            if session or session.modified:
                super().save_session(app, session, response)
            else:
                response.vary.add("Cookie")
            return
        response.vary.add("Cookie")
        self._set_cookie(app, response, session_store.insert(name, session))

    def _set_cookie(self, app: Flask, response: Response, token: str | None) -> None:
        """Set the cookie; without a token, the session has ended in the meantime."""
        if token is None:
            return
        response.set_cookie(
            self.get_cookie_name(app),
            token,
            path="/",
            secure=True,
            httponly=True,
            samesite="Lax",
        )


def _load(token: str) -> StoredSession | None:
    """Return the session with a token, if it is valid."""
    try:
        found = hashed_tokens.find(UserSession, token)
    except SQLAlchemyError as error:
        # Raised later: at this point, Flask has neither session nor route to handle it.
        g.session_error = error
        roll_back()
        return None
    if found is None:
        return None
    row, user = found
    g.session_mark = row.token_hash[:16]
    if row.expires_at <= utcnow():
        db.session.delete(db.session.merge(row, load=False))
        g.session_expired_of = user
        return None
    return StoredSession(row, user) if user.active else None


def _identify(app: Flask, session: SessionMixin) -> None:
    """Set the user of the request for Flask-Login.

    By itself, it would load the user later, and compute an identifier of the browser
    that nothing uses.
    """
    manager: Any = app.login_manager  # type: ignore[attr-defined]
    user = None
    if isinstance(session, StoredSession):
        user = _user_of(session, session.get(SIGNED_IN))
    manager._update_request_context_with_user(user)


def _load_user(uniquifier: str) -> BaseUser | None:
    """Return the signed-in user for Flask-Login, like Flask-Security's loader."""
    if not isinstance(session, StoredSession):
        return None
    return _user_of(session, uniquifier)


def _user_of(session: StoredSession, uniquifier: str | None) -> BaseUser | None:
    """Return the user of a session, if they are signed in by this identifier."""
    user = session.user
    if user.fs_uniquifier != uniquifier:
        return None
    set_request_attr("fs_authn_via", "session")
    set_request_attr("fs_paa", session.get(AUTHENTICATED_AT, 0))
    return user


def _record_expired() -> None:
    """Record an expired session, once the request has its id and route."""
    if user := g.pop("session_expired_of", None):
        events.record("session_expired", user, actor=user)


def _rotate_session(*_: object, **__: object) -> None:
    g.signed_in_now = True


def _clear_site_data(*_: object, **__: object) -> None:
    """Make the browser delete cached pages and storage (OWASP ASVS 5.0, 14.3.1)."""

    @after_this_request
    def clear(response: Response) -> Response:
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response


def _raise_session_error(_: Flask, **__: Any) -> None:
    """Raise the database error, instead of treating the user as signed out.

    It must run before all other functions: CSRF validation would see an empty session.
    """
    if "session_error" in g and request.blueprint != "health":
        raise g.session_error
