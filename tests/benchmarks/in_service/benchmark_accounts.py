"""Migrates the service's database and signs a user in.

Prints what a client sends: a session cookie, its CSRF token and an access token.
"""

import json
import re
import secrets
from typing import Any

from benchmark_views import PERMISSION, ROLES, app
from bulwark.database import db, utcnow
from bulwark.identity import roles, tokens
from bulwark.jobs import queue
from flask_migrate import upgrade
from flask_security import hash_password

HOST = app.config["TRUSTED_HOSTS"][0]
EMAIL = f"reader@{HOST}"
# What nginx sends with each request.
PROXY = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}


def add_user(email: str, password: str) -> str:
    """Add a user with three roles; return an access token of theirs."""
    with app.app_context():
        upgrade(revision="heads")
        queue.create_tables()
        list(roles.make_roles())
        user = app.extensions["security"].datastore.create_user(
            email=email,
            password=hash_password(password),
            confirmed_at=utcnow(),
            roles=list(ROLES),
        )
        db.session.commit()
        token, _ = tokens.make(user, "benchmark", [PERMISSION], 30)
        db.session.commit()
    return token


def sign_in(email: str, password: str) -> tuple[str, str]:
    """Sign in with the form; return the session cookie and a CSRF token."""
    client = app.test_client()
    common: dict[str, Any] = {"base_url": f"https://{HOST}", "headers": PROXY}
    page = client.get("/login", **common).text
    common["headers"] = PROXY | {"Referer": f"https://{HOST}/login"}
    form = {"csrf_token": csrf_token(page), "email": email, "password": password}
    answer = client.post("/login", data=form, **common)
    assert answer.status_code == 302, answer.text
    page = client.get("/account", **common).text
    name = app.config["SESSION_COOKIE_NAME"]
    cookie = client.get_cookie(name, domain=HOST)
    assert cookie, page
    return f"{name}={cookie.value}", csrf_token(page)


def csrf_token(page: str) -> str:
    found = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)
    assert found, page
    return found[1]


def main() -> None:
    password = secrets.token_urlsafe(24)
    token = add_user(EMAIL, password)
    cookie, csrf = sign_in(EMAIL, password)
    print(json.dumps({"cookie": cookie, "csrf_token": csrf, "token": token}))


if __name__ == "__main__":
    main()
