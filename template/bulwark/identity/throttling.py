"""Limits on guessing, by network and by account, that don't lock out the owner.

Attempts are counted before they are checked, so concurrent ones count too. A limit only
blocks one secret in browsers where its owner has never signed in. A passkey, a browser
that the owner uses, and a new password by email still work. Each of them resets the
counts.
"""

import itertools
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from flask import Flask, Response, after_this_request
from flask_security import signals
from flask_security.tf_plugin import tf_clean_session
from werkzeug.exceptions import ServiceUnavailable, TooManyRequests
from wtforms import Form

from bulwark.audit import events
from bulwark.identity import devices
from bulwark.identity.models import BaseUser
from bulwark.identity.security import password_hashing
from bulwark.web import attempts, errors, rate_limits

WINDOW = timedelta(minutes=15)
# NIST SP 800-63B-4, 3.2.2: 100 failures in a row for one account, then no more.
IN_A_ROW = 100
REMEMBERED = timedelta(days=365)

# Limits for each network. The first one keeps its hashing within an eighth of a core
# (0.25 s each), and still lets an office of 300 people behind one address sign in.
HASHING = "30 per minute; 300 per hour"
CHECKING = "30 per minute; 300 per hour"
MAILING = "10 per minute; 60 per hour"
LIMITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "passwords": (
        HASHING,
        (
            "security.login",
            "security.verify",
            "security.change_password",
            "security.reset_password",
            "sign_up.complete",
        ),
    ),
    "factors": (
        CHECKING,
        (
            "security.two_factor_token_validation",
            "security.mf_recovery",
            # Where a response is verified; each sign-in page requests a challenge.
            "security.wan_signin_response",
            "security.wan_verify_response",
        ),
    ),
    "mails": (
        MAILING,
        (
            "security.forgot_password",
            "security.change_email",
            "sign_up.register",
            "reauthentication.send_code",
        ),
    ),
}


@dataclass(frozen=True)
class Secret:
    """A secret to guess, and the allowed attempts within `WINDOW`."""

    name: str
    plural: str
    tries: int


PASSWORD = Secret("password", "passwords", 10)
# Three of a million codes are valid at any time; OWASP ASVS 5.0, 6.6.3.
CODE = Secret("totp", "codes", 5)
RECOVERY_CODE = Secret("recovery_code", "recovery codes", 5)
SECRETS = (PASSWORD, CODE, RECOVERY_CODE)


class CountsGuesses:
    """A mixin for forms of second factors; the first base, before the stock form."""

    secret: ClassVar[Secret]
    user: Any  # A `BaseUser`, set by the view.
    is_setup = False  # During set-up, there is nothing to guess.

    def validate(self, **options: Any) -> bool:
        """Count the code before it is checked; after too many, end the sign-in."""
        if self.is_setup:
            return bool(super().validate(**options))  # type: ignore[misc]
        if refusal := count(self.secret, self.user.email, self.user):
            tf_clean_session()  # type: ignore[no-untyped-call]
            raise refusal
        valid = bool(super().validate(**options))  # type: ignore[misc]
        if valid:
            undo(self.secret, self.user.email, self.user)
        return valid


def init_app(app: Flask) -> None:
    """Reset the counts of a user after a password reset."""
    signals.password_reset.connect(_password_reset, app)


def limit_requests(app: Flask) -> None:
    """Limit the requests of each network, once all views in `LIMITS` are registered."""
    for name, (rule, endpoints) in LIMITS.items():
        rate_limits.share(app, rule, name, endpoints)


def may_try(form: Form, email: str, user: BaseUser | None) -> bool:
    """Count an attempt at a password; after too many, add an error to the form."""
    password_hashing.refuse_when_full(known=bool(devices.known_to(user)))
    refusal = count(PASSWORD, email, user)
    if refusal is None:
        return True
    form.form_errors.append(refusal.description)

    @after_this_request
    def _answer(response: Response) -> Response:
        response.status_code = refusal.code
        response.headers.extend(refusal.get_headers())
        return response

    return False


def count(secret: Secret, email: str, user: BaseUser | None) -> TooManyRequests | None:
    """Count an attempt before it is checked; return an error if there are too many.

    Args:
        secret: the kind of secret.
        email: the address entered, whether it has an account or not.
        user: the account, if there is one.
    """
    subject = _subject(email, user)
    lately = attempts.count(secret.name, subject, WINDOW)
    if lately.count > secret.tries:
        if lately.count == secret.tries + 1:
            events.record("authn_login_fail_max", user, factor=secret.name)
        seconds = lately.seconds_left
        return TooManyRequests(
            f"Too many incorrect {secret.plural}. Try again in"
            f" {errors.humanize(seconds)}. You can still sign in with a passkey, or set"
            " a new password by email.",
            retry_after=seconds,
        )
    in_a_row = attempts.count(_in_a_row(secret), subject, REMEMBERED)
    if in_a_row.count > IN_A_ROW:
        if in_a_row.count == IN_A_ROW + 1:
            events.record("authn_login_fail_max", user, factor=secret.name)
        return TooManyRequests(
            f"Too many incorrect {secret.plural}, so we don't accept any more. Sign in"
            " with a passkey, or set a new password by email.",
        )
    after_this_request(partial(_undo_unchecked, secret, subject))
    return None


def undo(secret: Secret, email: str, user: BaseUser | None) -> None:
    """Undo the count of an attempt that was correct."""
    _undo_counts(secret, _subject(email, user))


def succeeded(user: BaseUser) -> bool:
    """Reset the counts of a user who signed in; return whether there were any."""
    subjects = {user.email, _subject(user.email, user)}
    kinds = [kind for secret in SECRETS for kind in (secret.name, _in_a_row(secret))]
    return bool(attempts.forget(*itertools.product(kinds, subjects)))


def _subject(email: str, user: BaseUser | None) -> str:
    """Return the key of the counts: the account, and the browser if it is known."""
    return f"{email} {devices.known_to(user)}".rstrip()


def _in_a_row(secret: Secret) -> str:
    return f"{secret.name} in a row"


def _undo_counts(secret: Secret, subject: str) -> None:
    attempts.undo(secret.name, subject)
    attempts.undo(_in_a_row(secret), subject)


def _undo_unchecked(secret: Secret, subject: str, response: Response) -> Response:
    """Undo the count of an attempt that was not checked, see `password_hashing`."""
    if response.status_code == ServiceUnavailable.code:
        _undo_counts(secret, subject)
    return response


def _password_reset(_: Flask, user: BaseUser, **__: Any) -> None:
    succeeded(user)
