"""The authenticator app and recovery codes. Each code works once."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from functools import wraps
from typing import Any

from flask import Flask, redirect, session, url_for
from flask_login import current_user
from flask_security import MfRecoveryCodesUtil, Totp, UserMixin
from passlib.exc import TokenError
from passlib.totp import TOTP, AppWallet
from sqlalchemy import delete, or_, update

from bulwark import settings
from bulwark.audit import events
from bulwark.database import db
from bulwark.identity import peppers, users
from bulwark.identity.models import RecoveryCode

TOTP_STEP = 30  # seconds (RFC 6238, 5.2); codes are valid one step before and after
# The keys are random, so stretching adds no security; it took 15 ms for each code.
KEY_COST = 0
SETTING_UP = "validating_profile"  # the value that Flask-Security uses
RECOVERY_CODES = 10
RECOVERY_CODE_BYTES = 16  # 128 bits, so that stolen keyed hashes can't be searched


def init_app(app: Flask) -> None:
    """Override two of Flask-Security's pages."""
    # The stock page lets anyone email the administrator; recovery codes replace it.
    app.view_functions["security.two_factor_rescue"] = lambda: redirect(
        url_for("security.mf_recovery")
    )
    code = app.view_functions["security.two_factor_token_validation"]

    @wraps(code)
    def code_if_expected() -> Any:
        """Redirect users outside a set-up, whom the stock page would sign out."""
        if current_user.is_authenticated and session.get("tf_state") != SETTING_UP:
            return redirect(url_for("account.index"))
        return code()

    app.view_functions["security.two_factor_token_validation"] = code_if_expected


def issuer(config: settings.Config) -> str:
    """Return the service's name for authenticator apps, which don't allow colons."""
    return re.sub(r"[\s:]*:[\s:]*", " ", config.name).strip() or config.slug


class OneTimeTotp(Totp):
    """Accepts each code once, within one time step of now."""

    def __init__(self, secrets: Mapping[str, str], issuer: str) -> None:
        # The first key is the newest; by default, passlib uses the greatest id.
        wallet = AppWallet(dict(secrets), next(iter(secrets)), encrypt_cost=KEY_COST)
        self._totp = TOTP.using(issuer=issuer, wallet=wallet)

    def verify_totp(
        self, token: str, totp_secret: str, user: UserMixin, window: int = 0
    ) -> bool:
        """Return whether the code is correct, current and newer than the last one."""
        try:
            totp = self._totp.from_source(totp_secret)
            match = totp.match(token, window=window)
        except (TokenError, ValueError):
            return False
        if totp.changed and user.tf_totp_secret == totp_secret:
            user.tf_totp_secret = totp.to_json()  # with the current key and cost
        return self._is_newest(user, match.counter)

    def renew(self, totp_secret: str) -> str:
        """Return a seed encrypted with the first key; an unknown format unchanged."""
        try:
            return str(self._totp.from_source(totp_secret).to_json())
        except (TokenError, ValueError):
            return totp_secret

    def is_current(self, totp_secret: str) -> bool:
        """Return whether a seed is encrypted with the first key."""
        try:
            return not self._totp.from_source(totp_secret).changed
        except (TokenError, ValueError):
            return True

    @staticmethod
    def _is_newest(user: UserMixin, counter: int) -> bool:
        """Claim the time step; of concurrent requests, only one succeeds."""
        model = users.model()
        taken = db.session.execute(
            update(model)
            .where(
                model.id == user.id,
                or_(model.totp_counter.is_(None), model.totp_counter < counter),
            )
            .values(totp_counter=counter)
            .returning(model.id)
            .execution_options(synchronize_session=False)
        )
        return taken.first() is not None


class HashedRecoveryCodes(MfRecoveryCodesUtil):
    """Recovery codes, stored as keyed hashes only."""

    def __init__(self, app: Flask) -> None:
        """Require no key of their own: the pepper serves as the key."""

    def create_recovery_codes(self, user: UserMixin) -> list[str]:
        """Replace the user's codes, and return the new ones, only this once."""
        codes = [_new_code() for _ in range(RECOVERY_CODES)]
        user.mf_recovery_codes = [
            RecoveryCode(code_hash=_hashes(user, code)[0])  # type: ignore[misc]
            for code in codes
        ]
        events.record("authn_recovery_codes_made", user)
        return codes

    def get_recovery_codes(self, user: UserMixin) -> list[str]:
        """Return none: codes are only shown when they are generated."""
        return []

    def check_recovery_code(self, user: UserMixin, code: str) -> bool:
        """Delete a code and return whether it existed, once for concurrent uses."""
        taken = db.session.execute(
            delete(RecoveryCode)
            .where(
                RecoveryCode.user_id == user.id,
                RecoveryCode.code_hash.in_(_hashes(user, code)),
            )
            .returning(RecoveryCode.user_id)
            .execution_options(synchronize_session=False)
        )
        found = taken.first() is not None
        if not found:
            user.track_failed_authn("recovery_code", tfa=True)
        return found

    def delete_recovery_code(self, user: UserMixin, code: str) -> bool:
        """Do nothing: `check_recovery_code` has already deleted it."""
        return True


def totp_secrets(keys: Mapping[str, bytes]) -> dict[str, str]:
    """Derive the keys that encrypt a seed during set-up from the data keys."""
    return {
        key_id: hmac.digest(key, b"totp", "sha256").hex()
        for key_id, key in keys.items()
    }


def _new_code() -> str:
    """Generate a code of 26 letters and digits, in groups of four."""
    code = base64.b32encode(secrets.token_bytes(RECOVERY_CODE_BYTES))
    text = code.decode().rstrip("=").lower()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


def _hashes(user: UserMixin, code: str) -> list[str]:
    """Return the hashes of a code with each pepper, the current one first."""
    plain = "".join(c for c in code.lower() if c.isalnum())
    message = f"recovery code:{user.id}:{plain}".encode()
    return [
        hmac.new(pepper.encode(), message, hashlib.sha256).hexdigest()
        for pepper in peppers.known().values()
    ]
