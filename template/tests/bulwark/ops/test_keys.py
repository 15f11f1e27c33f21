"""`flask keys`: status, and rotation of the encryption keys without a loss."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, create_engine, select, text

from bulwark.audit import chain_keys, events, verification
from bulwark.database import db, utcnow
from bulwark.database.encryption import encrypted_columns
from bulwark.identity.security import second_factors
from bulwark.ops.keys import ages, commands, stores
from bulwark.ops.keys.lock import RotationRunningError, one_rotation
from tests.bulwark.database.patients import Base, Patient, Sample, hospital
from tests.conftest import add_person
from tests.support import find_user

__all__ = ["hospital"]

OLD, NEW = b"o" * 32, b"n" * 32
UseKeys = Callable[..., None]


@pytest.fixture
def use_keys(hospital: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[UseKeys]:
    """Return a function that gives the service encryption keys, as a restart does."""
    before = hospital.extensions["bulwark"]
    security = hospital.extensions["security"]

    def use(**keys: bytes) -> None:
        keys = {name.removeprefix("key_"): key for name, key in keys.items()}
        config = replace(before, encryption_keys=keys)
        monkeypatch.setitem(hospital.extensions, "bulwark", config)
        totp = second_factors.OneTimeTotp(second_factors.totp_secrets(keys), "x")
        monkeypatch.setattr(security, "_totp_factory", totp)

    tables = Base.metadata.sorted_tables
    monkeypatch.setattr(
        stores, "encrypted_columns", lambda _: encrypted_columns(tables)
    )
    use(key_1=OLD)
    yield use
    db.session.rollback()


def run(app: Flask, *words: str) -> tuple[int, str]:
    done = app.test_cli_runner().invoke(args=["keys", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done
    return done.exit_code, done.output


def add_patients(number: int) -> None:
    for n in range(number):
        db.session.add(Patient(number=f"A-{n}", diagnosis=f"{n} colds"))
    db.session.add(Sample(text="x", document={"a": 1}))
    db.session.commit()


def patients_are_readable(number: int) -> None:
    db.session.expire_all()
    found = db.session.execute(select(Patient.number, Patient.diagnosis)).all()
    assert sorted(found) == sorted((f"A-{n}", f"{n} colds") for n in range(number))
    for n in range(number):
        query = select(Patient.diagnosis).where(Patient.number_index == f"a-{n}")
        assert db.session.scalars(query).all() == [f"{n} colds"]


# --- Status ---------------------------------------------------------------------------


def test_status_shows_what_needs_each_key(hospital, use_keys):
    add_patients(3)
    use_keys(key_2=NEW, key_1=OLD)
    db.session.add(Patient(diagnosis="flu"))
    db.session.commit()
    code, out = run(hospital, "status")
    assert code == 0
    new, old = out.partition("key 2 encrypts")[2].split("key 1 only reads")
    assert "1 test_patients.diagnosis" in new
    for line in (
        "3 test_patients.number\n",
        "3 test_patients.number_index",
        "3 test_patients.diagnosis",
    ):
        assert line in old


def test_status_shows_no_key(hospital, use_keys):
    _, out = run(hospital, "status")
    assert OLD.hex() not in out
    assert "o" * 32 not in out
    assert hospital.extensions["bulwark"].secret_key not in out


def test_a_key_has_the_age_since_it_was_first_used(hospital, use_keys, monkeypatch):
    first = utcnow() - timedelta(days=401)
    with monkeypatch.context() as patch:
        patch.setattr(ages, "utcnow", lambda: first)
        run(hospital, "status")
    use_keys(key_2=NEW, key_1=OLD)
    _, out = run(hospital, "status")
    assert "APP_ENCRYPTION_KEYS, in use since" in out
    assert "(0 days)" in out.splitlines()[0]
    assert "(401 days): rotate it" in out.partition("APP_SECRET_KEY")[2].splitlines()[0]


# --- Rotation -------------------------------------------------------------------------


def test_after_a_rotation_everything_works_without_the_former_key(
    hospital, use_keys, visitor, time_machine
):
    time_machine.move_to(datetime.now(UTC), tick=False)  # a code is valid for 30 s
    add_patients(5)
    zoe = find_user(hospital, add_person(hospital, "zoe@example.org", totp=True))
    seed = zoe.tf_totp_secret
    code = hospital.extensions["security"].totp_factory.generate_totp_password
    plain = code(seed)
    visitor.submit("/reset", {"email": "zoe@example.org"})
    use_keys(key_2=NEW, key_1=OLD)
    status, out = run(hospital, "rotate", "encryption")
    assert status == 0, out
    assert "Nothing needs key 1 any more" in out
    use_keys(key_2=NEW)
    patients_are_readable(5)
    db.session.expire_all()
    code = hospital.extensions["security"].totp_factory.generate_totp_password
    assert code(find_user(hospital, "zoe@example.org").tf_totp_secret) == plain
    assert visitor.letters()[-1]["To"] == "zoe@example.org"
    assert verification.verify() is not None


def test_links_of_a_key_that_was_only_removed_are_not_provable(hospital, use_keys):
    events.record("session_expired", reason="a test")
    db.session.commit()
    use_keys(key_2=NEW)
    with pytest.raises(verification.ChainBrokenError, match="needs the key '1'"):
        verification.verify()


def test_chain_keys_survive_a_second_rotation(hospital, use_keys):
    events.record("session_expired", reason="a test")
    db.session.commit()
    use_keys(key_2=NEW, key_1=OLD)
    run(hospital, "rotate", "encryption")
    use_keys(key_3=b"3" * 32, key_2=NEW)
    assert run(hospital, "rotate", "encryption")[0] == 0
    use_keys(key_3=b"3" * 32)
    assert verification.verify() is not None
    stored = db.session.scalars(select(chain_keys.ChainKey.sealed_key))
    assert all(value.startswith(b"3:") and OLD not in value for value in stored)


def test_a_rotation_that_is_killed_after_each_batch_is_continued(
    hospital, use_keys, monkeypatch
):
    monkeypatch.setattr(stores, "BATCH", 2)
    add_patients(5)
    use_keys(key_2=NEW, key_1=OLD)
    for batches in count(1):
        # A kill leaves what was committed, and nothing else.
        done = 0
        with suppress(StopIteration):
            steps = (n for store in stores.stores() for n in store.renew())
            for _ in range(batches):
                done += next(steps)
        db.session.rollback()
        patients_are_readable(5)
        if done == 0:
            break
        assert batches < 20
    assert sum(store.count("1") for store in stores.stores()) == 0
    use_keys(key_2=NEW)
    patients_are_readable(5)


def test_a_value_that_changes_meanwhile_is_kept(hospital, use_keys, monkeypatch):
    add_patients(1)
    use_keys(key_2=NEW, key_1=OLD)
    of_diagnosis: Any = next(
        store for store in stores.stores() if store.name == "test_patients.diagnosis"
    )
    renew = of_diagnosis.renew_value

    def change_first(*arguments: Any) -> Any:
        patient = db.session.scalars(select(Patient)).one()
        patient.diagnosis = "changed"
        db.session.flush()
        return renew(*arguments)

    of_diagnosis.renew_value = change_first
    assert list(of_diagnosis.renew())
    db.session.expire_all()
    assert db.session.scalars(select(Patient.diagnosis)).all() == ["changed"]


def test_values_of_a_process_with_the_former_key_are_reported(hospital, use_keys):
    use_keys(key_2=NEW, key_1=OLD)
    renewed = commands._renew
    add_patients(1)

    use_keys(key_1=OLD, key_2=NEW)  # such as one that was not restarted
    db.session.add(Patient(diagnosis="late"))
    db.session.commit()
    use_keys(key_2=NEW, key_1=OLD)
    (store,) = [s for s in stores.stores() if s.name == "test_patients.diagnosis"]
    assert store.count("1") == 1
    renewed(["1"])
    assert store.count("1") == 0


def test_an_unreadable_value_is_named_and_stays(hospital, use_keys):
    add_patients(2)
    row = db.session.scalars(select(Patient.id)).first()
    db.session.execute(
        text(f"UPDATE test_patients SET diagnosis = number WHERE id = {row}")
    )
    db.session.commit()
    use_keys(key_2=NEW, key_1=OLD)
    code, out = run(hospital, "rotate", "encryption")
    assert code == 1
    assert (
        f"unreadable: test_patients.diagnosis:{row} was changed or belongs elsewhere"
        in out
    )
    assert "1 values still need a former key" in out


def test_equal_values_that_were_stored_meanwhile_stop_a_unique_index(
    hospital, use_keys
):
    add_patients(1)
    use_keys(key_2=NEW, key_1=OLD)
    db.session.add(Patient(number="A-0"))
    db.session.commit()
    code, out = run(hospital, "rotate", "encryption")
    assert code == 1
    assert "test_patients.number_index: two rows have equal values" in out


def test_one_key_is_not_rotated(hospital, use_keys):
    code, out = run(hospital, "rotate", "encryption")
    assert (code, "bin/secrets rotate encryption add" in out) == (0, True)


def test_a_key_that_does_not_encrypt_yet_is_not_rotated_to(hospital, use_keys):
    add_patients(1)
    use_keys(key_1=OLD, key_2=NEW)
    code, out = run(hospital, "rotate", "encryption")
    assert (code, "bin/secrets rotate encryption use" in out) == (1, True)
    assert "remove" not in out


# --- One at a time --------------------------------------------------------------------


@pytest.fixture
def engine(app: Flask, tmp_path: Path) -> Iterator[Engine]:
    """A database that several processes can open."""
    with app.app_context():
        url = db.engine.url
    if url.get_backend_name() == "sqlite":
        sqlite3.connect(tmp_path / "some.db").close()
        url = url.set(database=str(tmp_path / "some.db"))
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_a_second_rotation_is_refused_until_the_first_ends(engine):
    with (
        one_rotation(engine),
        pytest.raises(RotationRunningError),
        one_rotation(engine),
    ):
        pass
    with one_rotation(engine):
        pass


def test_the_command_explains_that_another_rotation_runs(
    hospital, use_keys, monkeypatch
):
    def taken(_: Engine) -> None:
        raise RotationRunningError

    monkeypatch.setattr(commands, "one_rotation", taken)
    use_keys(key_2=NEW, key_1=OLD)
    code, out = run(hospital, "rotate", "encryption")
    assert (code, "another rotation is running" in out) == (1, True)
