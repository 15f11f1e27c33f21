"""Rotation of the signing key: what a former key signed is valid while it is known."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask import Flask

from bulwark.identity import setup
from bulwark.identity.security.settings import settings_for
from tests.conftest import Visitor

OLD, NEW = "old-" * 16, "new-" * 16
UseKeys = Callable[..., None]


@pytest.fixture
def use_keys(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[UseKeys]:
    """Return a function that gives the service keys, as a restart does."""
    security, before = app.extensions["security"], app.extensions["bulwark"]

    def use(key: str, *fallbacks: str) -> None:
        config = replace(before, secret_key=key, secret_key_fallbacks=fallbacks)
        monkeypatch.setitem(app.extensions, "bulwark", config)
        monkeypatch.setitem(app.config, "SECRET_KEY", key)
        monkeypatch.setitem(app.config, "SECRET_KEY_FALLBACKS", list(fallbacks))
        for_forms = settings_for(config)["WTF_CSRF_SECRET_KEY"]
        monkeypatch.setitem(app.config, "WTF_CSRF_SECRET_KEY", for_forms)
        setup.sign_with_newest_key(security, config)

    yield use
    setup.sign_with_newest_key(security, before)


def reset_link(visitor: Visitor, person: str) -> str:
    visitor.submit("/reset", {"email": person})
    return visitor.link_in_last_letter()


def sign_up_link(visitor: Visitor, _: str) -> str:
    visitor.submit("/register", {"email": "new@example.org"})
    return visitor.link_in_last_letter()


@pytest.mark.usefixtures("public_sign_up")
@pytest.mark.parametrize("make", [reset_link, sign_up_link])
def test_a_link_works_until_its_key_is_removed(
    visitor: Visitor, person: str, use_keys: UseKeys, make: Callable[..., str]
):
    use_keys(OLD, NEW)  # the new key is added first: each process must know it
    link = make(visitor, person)
    for keys, status in (((NEW, OLD), 200), ((NEW,), 302)):
        use_keys(*keys)
        assert visitor.get(link).status_code == status


@pytest.mark.usefixtures("public_sign_up")
@pytest.mark.parametrize("make", [reset_link, sign_up_link])
def test_the_new_key_signs_links(
    visitor: Visitor, person: str, use_keys: UseKeys, make: Callable[..., str]
):
    use_keys(NEW, OLD)
    link = make(visitor, person)
    for keys, status in (((OLD, NEW), 200), ((NEW,), 200), ((OLD,), 302)):
        use_keys(*keys)
        assert visitor.get(link).status_code == status


def test_an_open_form_works_after_the_change(visitor: Visitor, use_keys: UseKeys):
    use_keys(OLD, NEW)
    token = visitor.csrf_token("/login")
    form = {"csrf_token": token, "email": "x@example.org", "password": "x"}
    headers = {"Referer": "https://localhost/login"}
    for keys, status in (((NEW, OLD), 200), ((NEW,), 400)):
        use_keys(*keys)
        answer = visitor.client.post("/login", data=form, headers=headers)
        assert answer.status_code == status


def test_nobody_is_signed_out(visitor: Visitor, person: str, use_keys: UseKeys):
    use_keys(OLD, NEW)
    visitor.sign_in(person)
    for keys in ((NEW, OLD), (NEW,)):
        use_keys(*keys)
        assert visitor.is_signed_in()
