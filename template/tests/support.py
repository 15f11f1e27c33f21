"""Steps that several test modules take: setting up and using second factors, and more.

`conftest.py` has the fixtures, and the visitor whom these functions take.
"""

from typing import Any

from flask import Flask

from bulwark.database import db
from bulwark.identity import tokens
from tests.conftest import Visitor
from tests.passkey import SoftwarePasskey

JSON = {"Accept": "application/json"}

# --- Accounts -------------------------------------------------------------------------


def find_user(app: Flask, email: str) -> Any:
    """Return the user with an email address."""
    return app.extensions["security"].datastore.find_user(email=email)


def user_path(app: Flask, email: str, action: str = "") -> str:
    """Return the administrators' page of a user, or of an action on them."""
    with app.app_context():
        return f"/admin/users/{find_user(app, email).id}/{action}".rstrip("/")


# --- Access tokens --------------------------------------------------------------------


def make_token(app: Flask, email: str, *permissions: str) -> str:
    """Create a token of a user, valid for a month."""
    with app.app_context():
        made, _ = tokens.make(find_user(app, email), "Report", permissions, 30)
        db.session.commit()
    return made


def bearer(token: str) -> dict[str, str]:
    """Return the header that sends a token."""
    return {"Authorization": f"Bearer {token}"}


# --- Second factors -------------------------------------------------------------------


def begin_app(visitor: Visitor) -> tuple[str, str]:
    """Begin to set up an authenticator app; return its key, and the state."""
    begun = visitor.send("/account/authenticator", {"setup": "authenticator"})
    values = begun.get_json()["response"]
    return values["tf_authr_b32key"], values["tf_state_token"]


def give_code(visitor: Visitor, code: str) -> Any:
    """Enter a code after the password."""
    return visitor.submit("/login/code", {"code": code})


def make_codes(visitor: Visitor) -> list[str]:
    """Generate recovery codes."""
    answer = visitor.send("/account/recovery-codes", {"generate_new_codes": True})
    codes: list[str] = answer.get_json()["response"]["recovery_codes"]
    return codes


# --- Passkeys -------------------------------------------------------------------------


def register(
    visitor: Visitor, key: SoftwarePasskey, name: str = "Phone", **more: Any
) -> Any:
    """Add a passkey to the account."""
    begun = visitor.send("/account/passkeys", {"name": name, **more}).get_json()
    options = begun["response"]["credential_options"]
    state = begun["response"]["wan_state"]
    answer = key.register(options)
    return visitor.send(f"/account/passkeys/{state}", {"credential": answer})


def ask(visitor: Visitor, where: str = "/login/passkey") -> tuple[Any, str]:
    """Request a challenge; return the options for the passkey, and the state."""
    begun = visitor.send(where, {}).get_json()["response"]
    return begun["credential_options"], begun["wan_state"]


def use(visitor: Visitor, key: SoftwarePasskey, where: str = "/login/passkey") -> Any:
    """Sign in, or reauthenticate, with a passkey."""
    options, state = ask(visitor, where)
    return visitor.send(f"{where}/{state}", {"credential": key.sign(options)})
