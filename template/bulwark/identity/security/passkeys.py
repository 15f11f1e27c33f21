"""Passkeys and security keys, as the only step of a sign-in or as the second one.

Each passkey verifies its user with a PIN, fingerprint or face, so it is suitable for
both. Flask-Security's distinction between first and second factor keys is not exposed.
"""

import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from flask import current_app, request, session
from flask_login import current_user
from flask_security import Security, UserMixin, WebAuthnMixin, WebauthnUtil
from flask_security.utils import get_message
from flask_security.webauthn import (
    WebAuthnDeleteForm,
    WebAuthnRegisterForm,
    WebAuthnRegisterResponseForm,
    WebAuthnSigninResponseForm,
    WebAuthnTfPlugin,
)
from itsdangerous import URLSafeTimedSerializer
from webauthn.helpers import base64url_to_bytes
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)
from wtforms import HiddenField, StringField, SubmitField

from bulwark.identity.models import Extensions
from bulwark.identity.sessions import HALF_SIGNED_IN
from bulwark.web import attempts, origins

USAGE = "first"  # Flask-Security's name for a key that can be the only step.
NAME_LENGTH = 64
ID_LENGTH = 1023  # bytes: WebAuthn Level 3, 4, "Credential ID"
SIGN_COUNT = 2**31 - 1  # the maximum of the column
# Raised by stock code for malformed responses.
MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    WebAuthnException,
)


class States(URLSafeTimedSerializer):
    """Signs the state of each page separately.

    By default, Flask-Security accepts the state of one page on every other page.
    """

    def dumps(self, obj: Any, salt: str | bytes | None = None) -> str:
        """Sign a state for the current page."""
        return str(super().dumps(obj, salt or _page()))

    def loads(self, s: str | bytes, *args: Any, **options: Any) -> Any:
        """Load a state of the current page; raise `BadSignature` for any other."""
        return super().loads(s, *args, **{"salt": _page(), **options})


class Passkeys(WebauthnUtil):
    """Accepts all authenticators that verify their user."""

    def origin(self) -> list[str]:  # type: ignore[override]  # py_webauthn accepts lists
        """Return the origins of this service, with the public port."""
        return origins.ours()

    def authenticator_selection(
        self, user: UserMixin, usage: str
    ) -> AuthenticatorSelectionCriteria:
        """Accept phones, laptops and keys alike; by default, phones fail silently."""
        return AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        )

    def authentication_options(
        self, user: UserMixin | None, usage: list[str], existing_options: dict[str, Any]
    ) -> dict[str, Any]:
        """List the keys of a user after the password step only."""
        return existing_options | {
            "user_verification": UserVerificationRequirement.REQUIRED,
            "allow_credentials": [_descriptor(key) for key in user.webauthn]
            if user
            else None,
        }


class SecondStep(WebAuthnTfPlugin):
    """Offers passkeys as the second step to users who have one."""

    def get_setup_methods(self, user: UserMixin) -> list[tuple[str, str]]:
        """Return the passkey method if the user has a passkey."""
        if not user.webauthn:
            return []
        return [("webauthn", "Passkey")]


class PasskeyForm(WebAuthnRegisterForm):
    """Add a passkey with a name."""

    name = StringField(
        "Name",
        description="To recognize it later, such as “Phone” or “Blue key”.",
        validators=WebAuthnRegisterForm.name.kwargs["validators"],
        render_kw={"autocomplete": "off", "maxlength": NAME_LENGTH},
    )
    usage = HiddenField(default=USAGE)
    submit = SubmitField("Add a passkey")

    def validate(self, **options: Any) -> bool:
        """Ignore the submitted usage."""
        self.usage.data = USAGE
        return bool(super().validate(**options))


class _ResponseForm:
    """Rejects passkey responses that stock code can't parse."""

    credential: HiddenField

    def validate(self, **options: Any) -> bool:
        """Reject malformed responses."""
        valid = False
        with suppress(*MALFORMED):
            valid = _is_readable(self.credential.data) and super().validate(**options)  # type: ignore[misc]
            if valid or self.credential.errors:
                return bool(valid)
        self.credential.errors = [get_message("API_ERROR")[0]]
        return False


class NewPasskeyForm(_ResponseForm, WebAuthnRegisterResponseForm):
    """The response of a new passkey."""

    def validate(self, **options: Any) -> bool:
        """Reject keys that can't be stored, or whose id does not match."""
        if not super().validate(**options):
            return False
        new = self.registration_verification
        sent = base64url_to_bytes(json.loads(self.credential.data)["rawId"])
        if (
            new.credential_id == sent
            and len(sent) <= ID_LENGTH
            and new.sign_count <= SIGN_COUNT
        ):
            return True
        self.credential.errors = [get_message("API_ERROR")[0]]
        return False


class PasskeyResponseForm(_ResponseForm, WebAuthnSigninResponseForm):
    """The response of a passkey at sign-in or reauthentication."""

    def validate(self, **options: Any) -> bool:
        """Also reject replays, keys of other users and locked accounts."""
        self.is_secondary = False  # Each key is valid for both steps.
        self.remember.data = ""
        once = attempts.count("passkey", self.challenge, timedelta(minutes=5))
        if once.count > 1:
            self.credential.errors = [get_message("API_ERROR")[0]]
            return False
        # For a locked account, the stock form adds an error but returns True.
        if not super().validate(**options) or self.credential.errors:
            return False
        if self.authentication_verification.new_sign_count > SIGN_COUNT:
            self.credential.errors = [get_message("API_ERROR")[0]]
            return False
        expected = session.get(HALF_SIGNED_IN)
        if expected and self.user and self.user.fs_uniquifier != expected:
            self.credential.errors = [get_message("WEBAUTHN_MISMATCH_USER_HANDLE")[0]]
            return False
        return True


class PasskeyRemovalForm(WebAuthnDeleteForm):
    """Remove a passkey."""

    submit = SubmitField("Remove")

    def validate(self, **options: Any) -> bool:
        """Reject the removal of the last factor if the account requires one."""
        if not super().validate(**options):
            return False
        if (
            current_user.must_have_second_factor
            and current_user.sealed_totp_secret is None
            and len(current_user.webauthn) == 1
        ):
            self.name.errors = [
                "Your account requires a second factor. Add another one first, then"
                " remove this passkey."
            ]
            return False
        return True


FORMS: dict[str, Any] = {
    "wan_register_form": PasskeyForm,
    "wan_register_response_form": NewPasskeyForm,
    "wan_signin_response_form": PasskeyResponseForm,
    "wan_delete_form": PasskeyRemovalForm,
}


def init_app(security: Security) -> None:
    """Sign the states of each page with a separate key."""
    stock = security.wan_serializer
    security.wan_serializer = States(stock.secret_keys, salt=stock.salt)


def _page() -> str:
    """Return the salt of the current page, which its response view shares."""
    return f"bulwark.{(request.endpoint or '').removesuffix('_response')}"


def _is_readable(credential: str | None) -> bool:
    """Return whether a response is a JSON object with valid extensions."""
    read = current_app.json.loads(credential or "")
    return isinstance(read, dict) and (
        read.get("extensions") is None or Extensions.are(read["extensions"])
    )


def _descriptor(key: WebAuthnMixin) -> PublicKeyCredentialDescriptor:
    known = {transport.value for transport in AuthenticatorTransport}
    transports = [AuthenticatorTransport(t) for t in key.transports or () if t in known]
    return PublicKeyCredentialDescriptor(id=key.credential_id, transports=transports)
