"""Rotation of the pepper: everyone can sign in, and gets a hash of the newest one."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask

from bulwark.database import db
from bulwark.identity import users
from bulwark.identity.security import password_hashing, second_factors
from tests.conftest import GOOD_PASSWORD, Visitor, add_person
from tests.support import find_user, make_codes, post

OLD, NEW, THIRD = "old-" * 16, "gen2." + "new-" * 16, "gen3." + "third-" * 16
NEW_PASSWORD = "seven brass kettles hum"
UsePeppers = Callable[..., None]


@pytest.fixture
def use_peppers(app: Flask, monkeypatch: pytest.MonkeyPatch) -> UsePeppers:
    """Return a function that gives the service peppers, as a restart does."""
    before = app.extensions["bulwark"]

    def use(pepper: str, *fallbacks: str) -> None:
        config = replace(
            before, password_pepper=pepper, password_pepper_fallbacks=fallbacks
        )
        monkeypatch.setitem(app.extensions, "bulwark", config)
        monkeypatch.setitem(app.config, "SECURITY_PASSWORD_SALT", pepper)

    use(OLD)
    return use


def stored(app: Flask, email: str) -> str:
    with app.app_context():
        return str(find_user(app, email).password)


def signs_in(app: Flask, email: str, password: str = GOOD_PASSWORD) -> bool:
    visitor = Visitor(app, None)  # type: ignore[arg-type]
    visitor.sign_in(email, password)
    return visitor.is_signed_in()


def test_a_sign_in_replaces_the_hash_of_a_former_pepper(app, use_peppers):
    zoe = add_person(app, "zoe@example.org")
    before = stored(app, zoe)
    use_peppers(OLD, NEW)  # each process must know the new one before it is used
    assert signs_in(app, zoe)
    assert stored(app, zoe) == before
    use_peppers(NEW, OLD)
    assert not signs_in(app, zoe, "wrong")
    assert stored(app, zoe) == before
    assert signs_in(app, zoe)
    assert stored(app, zoe).startswith("$pepper=2$")
    use_peppers(NEW)
    assert signs_in(app, zoe)


def test_passwords_are_counted_by_the_generation_of_their_pepper(app, use_peppers):
    add_person(app, "zoe@example.org")
    add_person(app, "ada@example.org")
    use_peppers(NEW, OLD)
    assert signs_in(app, "ada@example.org")
    add_person(app, "eve@example.org")
    with app.app_context():
        assert [users.count_passwords(n) for n in (1, 2, 3)] == [1, 2, 0]
    out = app.test_cli_runner().invoke(args=["keys", "status"]).output
    assert "generation 2: 2 passwords\n  generation 1: 1 passwords" in out


def test_without_its_pepper_a_hash_is_worthless(app, use_peppers):
    zoe = add_person(app, "zoe@example.org")
    use_peppers(NEW)
    assert not signs_in(app, zoe)
    use_peppers(THIRD, NEW)
    assert not signs_in(app, zoe)


def test_a_process_that_does_not_use_the_new_pepper_yet_knows_it(app, use_peppers):
    use_peppers(NEW, OLD)
    zoe = add_person(app, "zoe@example.org")
    use_peppers(OLD, NEW)
    assert signs_in(app, zoe)


def test_a_second_rotation_works_like_the_first(app, use_peppers):
    use_peppers(NEW)
    zoe = add_person(app, "zoe@example.org")
    use_peppers(THIRD, NEW)
    assert signs_in(app, zoe)
    assert stored(app, zoe).startswith("$pepper=3$")


def test_a_password_can_be_changed_during_a_rotation(app, use_peppers, visitor):
    zoe = add_person(app, "zoe@example.org")
    visitor.sign_in(zoe)
    use_peppers(NEW, OLD)
    form = {
        "password": GOOD_PASSWORD,
        "new_password": NEW_PASSWORD,
        "new_password_confirm": NEW_PASSWORD,
    }
    assert visitor.submit("/change", form).status_code == 302
    assert stored(app, zoe).startswith("$pepper=2$")
    assert signs_in(app, zoe, NEW_PASSWORD)


def test_each_attempt_hashes_as_often_during_a_rotation(app, use_peppers, monkeypatch):
    add_person(app, "zoe@example.org")
    use_peppers(NEW, OLD)
    turns: list[str] = []
    in_turn = password_hashing._in_turn

    def count(*arguments, **options):
        turns.append("hash")
        return in_turn(*arguments, **options)

    monkeypatch.setattr(password_hashing, "_in_turn", count)
    seen = {}
    for email in ("zoe@example.org", "nobody@example.org"):
        turns.clear()
        assert not signs_in(app, email, "wrong")
        seen[email] = len(turns)
    assert set(seen.values()) == {1}


def test_recovery_codes_work_during_a_rotation(app, use_peppers, visitor):
    ada = add_person(app, "ada@example.org", totp=True)
    visitor.sign_in(ada)
    first, second, *_ = make_codes(visitor)
    post(visitor, "/logout")
    for keys, code, works in (((NEW, OLD), first, True), ((NEW,), second, False)):
        use_peppers(*keys)
        with app.app_context():
            found = find_user(app, ada)
            factors = second_factors.HashedRecoveryCodes(app)
            assert factors.check_recovery_code(found, code) is works
            db.session.commit()
