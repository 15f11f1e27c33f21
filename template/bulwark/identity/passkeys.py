"""Passkeys and security keys: the only step of a sign-in, or the second after one.

Each verifies its user by a PIN, finger or face, so each is good for both, and
Flask-Security's split into keys for the first and for the second step is not shown.
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

from bulwark import config, limits, origins
from bulwark.identity.models import Extensions
from bulwark.identity.sessions import HALF_SIGNED_IN

USAGE = "first"  # What Flask-Security calls a key that may be the only step.
NAME_LENGTH = 64
ID_LENGTH = 1023  # bytes: WebAuthn Level 3, 4, "Credential ID"
SIGN_COUNT = 2**31 - 1  # what the column holds
# What stock code raises at an answer that no browser gives.
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
    """Signs what a page asked of a passkey, so that only the answer to it may use that.

    Stock, a state of one page is taken at every other.
    """

    def dumps(self, obj: Any, salt: str | bytes | None = None) -> str:
        """Return a state of this page."""
        return str(super().dumps(obj, salt or _page()))

    def loads(self, s: str | bytes, *args: Any, **options: Any) -> Any:
        """Return a state of this page; any other is a `BadSignature`."""
        return super().loads(s, *args, **{"salt": _page(), **options})


class Passkeys(WebauthnUtil):
    """Asks browsers for any authenticator that verifies its user."""

    def origin(self) -> list[str]:  # type: ignore[override]  # py_webauthn takes any
        """Return what a browser may call this service, with the visitors' port."""
        return origins.ours()

    def authenticator_selection(
        self, user: UserMixin, usage: str
    ) -> AuthenticatorSelectionCriteria:
        """Take phones, laptops and security keys alike; stock, phones fail silently."""
        return AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        )

    def authentication_options(
        self, user: UserMixin | None, usage: list[str], existing_options: dict[str, Any]
    ) -> dict[str, Any]:
        """Name the keys of somebody whose password was right, and of nobody else."""
        return existing_options | {
            "user_verification": UserVerificationRequirement.REQUIRED,
            "allow_credentials": [_descriptor(key) for key in user.webauthn]
            if user
            else None,
        }


class SecondStep(WebAuthnTfPlugin):
    """Offers passkeys after a password to whoever has one."""

    def get_setup_methods(self, user: UserMixin) -> list[tuple[str, str]]:
        """Return the passkey as a way to go on, if there is one."""
        if not user.webauthn:
            return []
        return [("webauthn", "Passkey")]


class PasskeyForm(WebAuthnRegisterForm):
    """Add a passkey under a name."""

    name = StringField(
        "Name",
        description="So that you know it again, such as “Phone” or “Blue key”.",
        validators=WebAuthnRegisterForm.name.kwargs["validators"],
        render_kw={"autocomplete": "off", "maxlength": NAME_LENGTH},
    )
    usage = HiddenField(default=USAGE)
    submit = SubmitField("Add a passkey")

    def validate(self, **options: Any) -> bool:
        """Take what anybody says of its usage for what it is here."""
        self.usage.data = USAGE
        return bool(super().validate(**options))


class _Answer:
    """Holds what is sent as a passkey's answer to what stock code can read."""

    credential: HiddenField

    def validate(self, **options: Any) -> bool:
        """Refuse whatever no browser sends."""
        valid = False
        with suppress(*MALFORMED):
            valid = _is_readable(self.credential.data) and super().validate(**options)  # type: ignore[misc]
            if valid or self.credential.errors:
                return bool(valid)
        self.credential.errors = [get_message("API_ERROR")[0]]
        return False


class NewPasskeyForm(_Answer, WebAuthnRegisterResponseForm):
    """What a new passkey answered."""

    def validate(self, **options: Any) -> bool:
        """Refuse what could not be stored, or is stored under another id."""
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


class PasskeyResponseForm(_Answer, WebAuthnSigninResponseForm):
    """What a passkey answered, at a sign-in or to show that it is still you."""

    def validate(self, **options: Any) -> bool:
        """Close what Flask-Security leaves open: replay, other people's, locked."""
        self.is_secondary = False  # Each is good for both steps.
        self.remember.data = ""
        once = limits.count("passkey", self.challenge, timedelta(minutes=5))
        if once.count > 1:
            self.credential.errors = [get_message("API_ERROR")[0]]
            return False
        # An error that it adds for a locked account does not make it return False.
        if not super().validate(**options) or self.credential.errors:
            return False
        if self.authentication_verification.new_sign_count > SIGN_COUNT:
            self.credential.errors = [get_message("API_ERROR")[0]]
            return False
        wanted = session.get(HALF_SIGNED_IN)
        if wanted and self.user and self.user.fs_uniquifier != wanted:
            self.credential.errors = [get_message("WEBAUTHN_MISMATCH_USER_HANDLE")[0]]
            return False
        return True


class PasskeyRemovalForm(WebAuthnDeleteForm):
    """Remove a passkey."""

    submit = SubmitField("Remove")

    def validate(self, **options: Any) -> bool:
        """Leave a factor to somebody whose role requires one, as for the app."""
        if not super().validate(**options):
            return False
        if (
            current_user.must_have_second_factor
            and current_user.sealed_totp_secret is None
            and len(current_user.webauthn) == 1
        ):
            self.name.errors = [
                "Your account needs a second factor. Add another one first, then"
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
    """Sign the states of each page with a key of its own."""
    stock = security.wan_serializer
    security.wan_serializer = States(stock.secret_keys, salt=stock.salt)


def settings(settings: config.Config) -> dict[str, Any]:
    """Return what Flask-Security has to know of passkeys."""
    return {
        "WEBAUTHN": True,
        "WAN_RP_NAME": settings.name,
        "WAN_ALLOW_USER_HINTS": False,
        "WAN_ALLOW_AS_FIRST_FACTOR": True,
        "WAN_ALLOW_AS_MULTI_FACTOR": True,
        "WAN_ALLOW_AS_VERIFY": [USAGE],
        "WAN_POST_REGISTER_VIEW": "/account/second-factor/done",
        "WAN_NAME_MAX_LENGTH": NAME_LENGTH,
        # Letters with their marks, digits, punctuation and spaces, as Unicode has them.
        "WAN_NAME_ALLOWED_CHARS": ["L", "M", "N", "P", "Zs"],
        "WAN_REGISTER_URL": "/account/passkeys",
        "WAN_DELETE_URL": "/account/passkeys/remove",
        "WAN_SIGNIN_URL": "/login/passkey",
        "WAN_VERIFY_URL": "/verify/passkey",
        "WAN_SIGNIN_WITHIN": timedelta(minutes=5),
    }


def _page() -> str:
    """Return the page that asks a passkey, also where its answer goes."""
    return f"bulwark.{(request.endpoint or '').removesuffix('_response')}"


def _is_readable(answer: str | None) -> bool:
    """Tell whether an answer is a JSON object with extensions that can be shown."""
    read = current_app.json.loads(answer or "")
    return isinstance(read, dict) and (
        read.get("extensions") is None or Extensions.are(read["extensions"])
    )


def _descriptor(key: WebAuthnMixin) -> PublicKeyCredentialDescriptor:
    known = {transport.value for transport in AuthenticatorTransport}
    transports = [AuthenticatorTransport(t) for t in key.transports or () if t in known]
    return PublicKeyCredentialDescriptor(id=key.credential_id, transports=transports)
