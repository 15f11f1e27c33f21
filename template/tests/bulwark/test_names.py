"""The service's name: whatever it has in it works in every place where it appears."""

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import email_validator
import pytest
from flask import Flask
from flask_security.mail_util import EmailValidateException
from sqlalchemy import select

from app import create_app
from bulwark import mail
from bulwark.database import db
from bulwark.jobs import queue
from bulwark.mail import headers, outbox
from bulwark.mail.addresses import OutboxMailUtil
from bulwark.ops import dev_certificate
from bulwark.settings import ConfigurationError

# Each with what an authenticator app shows: its format has no colon (Key Uri Format).
NAMES = {
    "Acme: Billing": "Acme Billing",
    "a::b : c:": "a b c",
    ":": "shop",
    "{{ 7*7 }} {% raw %} {# #}": "{{ 7*7 }} {% raw %} {# #}",
    "100 % sure? #1 @home/": "100 % sure? #1 @home/",
    '"Quo", <b@c.d> & (more); \\ %s {0} $x': '"Quo", <b@c.d> & (more); \\ %s {0} $x',
    "x" * 80: "x" * 80,
    "日本語: 🎉": "日本語 🎉",
}


@pytest.fixture
def named(
    whole_app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Flask]]:
    """Return a function that starts the service under a name."""
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/named.db")
    monkeypatch.setenv("APP_SLUG", "shop")
    queue.storage.close()

    def start(name: str) -> Flask:
        monkeypatch.setenv("APP_NAME", name)
        return create_app()

    yield start
    queue.storage.close()
    queue.init_app(whole_app, whole_app.extensions["bulwark"])


@pytest.mark.parametrize(("name", "issuer"), NAMES.items())
def test_any_name_that_the_questions_accept_works(
    named: Callable[[str], Flask], tmp_path: Path, name: str, issuer: str
):
    app = named(name)
    with app.app_context():
        db.create_all()
        totp = app.extensions["security"].totp_factory
        uri = urlsplit(
            totp.get_totp_uri("zoe@example.org", totp.generate_totp_secret())
        )
        assert parse_qs(uri.query)["issuer"] == [issuer]
        assert unquote(uri.path) == f"/{issuer}:zoe@example.org"
        assert escape(name) in app.test_client().get("/login").text.replace(
            "&#34;", "&quot;"
        )
        mail.send("Hello", "zoe@example.org", "Text.")
        db.session.commit()
        sealed = db.session.scalars(select(outbox.OutgoingMail)).one()
        _, address = app.extensions["bulwark"].sender
        sender = headers.mailbox("From", address, name)
        assert sender in outbox._decrypted(sealed)
        db.session.remove()
        db.engine.dispose()
    assert dev_certificate.make(tmp_path, name)


@pytest.mark.parametrize("name", ["", "two\nlines", "bell\a", "\u2028"])
def test_a_name_that_no_header_may_hold_stops_the_start(
    named: Callable[[str], Flask], name: str
):
    with pytest.raises(ConfigurationError, match="APP_NAME"):
        named(name)


@pytest.fixture
def special_use() -> Iterator[None]:
    """Domains that receive no email, as they are before the service starts."""
    names = email_validator.SPECIAL_USE_DOMAIN_NAMES
    before = list(names)
    yield
    names[:] = before


@pytest.mark.usefixtures("special_use")
@pytest.mark.parametrize(
    ("email", "domain"),
    [
        ("A_b-1@Example.COM", "shop.example.com"),
        (f"{'a' * 64}@xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("admin@shop.local", "shop.local"),
        ("admin@corp.home.arpa", "shop.corp.home.arpa"),
        ("admin@corp.test", "shop.invalid"),
    ],
)
def test_the_administrator_whom_the_questions_accept_can_sign_in(
    named: Callable[[str], Flask],
    monkeypatch: pytest.MonkeyPatch,
    email: str,
    domain: str,
):
    monkeypatch.setenv("APP_ADMIN_EMAIL", email)
    monkeypatch.setenv("APP_DOMAIN", domain)
    app = named("Shop")
    # Production, where `.test` is no exception.
    monkeypatch.setattr(type(app.extensions["bulwark"]), "environment", "production")
    with app.app_context():
        util = OutboxMailUtil(app)
        assert util.validate(email) == email.lower()
        with pytest.raises(EmailValidateException):
            util.validate("zoe@elsewhere.onion")
        db.session.remove()
        db.engine.dispose()
