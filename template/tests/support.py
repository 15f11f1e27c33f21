"""Steps that several test modules take: setting up and using second factors, and more.

`conftest.py` has the fixtures, and the visitor whom these functions take.
"""

import re
import uuid
from typing import Any

from flask import Flask

from bulwark.database import db, utcnow
from bulwark.identity import tokens
from bulwark.identity.models import Passkey
from bulwark.web import access
from tests.conftest import Visitor
from tests.passkey import SoftwarePasskey

JSON = {"Accept": "application/json"}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

# --- Accounts -------------------------------------------------------------------------


def find_user(app: Flask, email: str) -> Any:
    """Return the user with an email address."""
    return app.extensions["security"].datastore.find_user(email=email)


def user_path(app: Flask, email: str, action: str = "") -> str:
    """Return the administrators' page of a user, or of an action on them."""
    with app.app_context():
        return f"/admin/users/{find_user(app, email).id}/{action}".rstrip("/")


# --- Pages ----------------------------------------------------------------------------


def text_of(visitor: Visitor, path: str) -> str:
    """Return the text of a page, without its markup."""
    answer = visitor.get(path, follow_redirects=True)
    assert answer.status_code == 200, path
    words: str = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))
    return words


def sample_path(rule: str, number: int = 1) -> str:
    """Return a path of a rule, with values that fit the types of its variables."""
    path = re.sub(r"<int[^>]*>", str(number), rule)
    path = re.sub(r"<float[^>]*>", "1.5", path)
    path = re.sub(r"<uuid[^>]*>", str(uuid.UUID(int=number)), path)
    return re.sub(r"<[^>]*>", "x", path)


def routes_of_users(app: Flask) -> list[tuple[str, str]]:
    """Return each method and path that is not public."""
    found = []
    for rule in app.url_map.iter_rules():
        if access.declared_for(app, rule.endpoint) in (access.PUBLIC, None):
            continue  # None: other tests add routes, to see them refused.
        path = sample_path(rule.rule)
        methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        found += [(method, path) for method in sorted(methods)]
    return found


def post(visitor: Visitor, path: str, data: dict[str, str] | None = None) -> Any:
    """Press a button of the account page."""
    headers = {"Referer": "https://localhost/account"}
    token = visitor.csrf_token("/account")
    return visitor.client.post(
        path, data={"csrf_token": token, **(data or {})}, headers=headers
    )


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


def give_passkey(app: Flask, email: str, name: str = "Blue key") -> None:
    """Add a row of a passkey, with which nobody can sign in."""
    with app.app_context():
        db.session.add(
            Passkey(
                user_id=find_user(app, email).id,
                name=name,
                credential_id=name.encode(),
                public_key=b"",
                backup_state=False,
                device_type="single_device",
                usage="first",
                lastuse_datetime=utcnow(),
            )
        )
        db.session.commit()
