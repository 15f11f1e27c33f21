"""Encrypted columns: what is stored, who can read it, and what is refused."""

import logging
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import (
    Integer,
    String,
    func,
    insert,
    select,
    text,
    union,
    update,
)
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from bulwark import crypto
from bulwark.database import BlindIndex, Encrypted, db, rows
from bulwark.observability.redaction import names_of
from tests.bulwark.database.patients import Base, Patient, Sample, Ward, hospital

__all__ = ["hospital"]


def add(number: str | None = "A-42", diagnosis: str | None = "flu") -> int:
    """Store a patient and forget the object, so that the next read is from the row."""
    patient = Patient(number=number, diagnosis=diagnosis)
    db.session.add(patient)
    db.session.commit()
    row = patient.id
    db.session.expunge_all()
    return row


def stored(column: str, row: int) -> Any:
    """Return what the table contains."""
    found = db.session.execute(
        text(f"SELECT {column} FROM test_patients WHERE id = {row}")
    )
    value = found.scalar()
    return None if value is None else bytes(value)


def read(row: int) -> Patient:
    patient = db.session.get(Patient, row)
    assert patient
    return patient


def use_keys(app: Flask, monkeypatch: pytest.MonkeyPatch, **keys: bytes) -> None:
    config = replace(app.extensions["bulwark"], encryption_keys=keys)
    monkeypatch.setitem(app.extensions, "bulwark", config)


# --- What is stored -------------------------------------------------------------------


def test_an_object_has_the_value_and_the_database_only_a_ciphertext(hospital):
    row = add(diagnosis="influenza")
    assert b"influenza" not in stored("diagnosis", row)
    assert len(stored("diagnosis", row)) > len("influenza") + 12 + 16
    assert read(row).diagnosis == "influenza"


def test_a_look_up_before_the_request_decrypts_too(hospital):
    db.session.add(Patient(number="12", diagnosis="flu"))
    db.session.commit()
    (row,) = rows.fetch(select(*rows.columns_of(Patient)), {})
    assert rows.instance_of(Patient, row).diagnosis == "flu"


def test_equal_values_have_different_ciphertexts(hospital):
    one, other = add("1", "flu"), add("2", "flu")
    assert stored("diagnosis", one) != stored("diagnosis", other)


def test_null_stays_null(hospital):
    row = add(number=None, diagnosis=None)
    assert (stored("diagnosis", row), stored("number_index", row)) == (None, None)
    assert (read(row).diagnosis, read(row).number) == (None, None)
    assert db.session.scalars(
        select(Patient.id).where(Patient.diagnosis.is_(None))
    ).all() == [row]
    known = select(Patient.id).where(Patient.diagnosis.is_not(None))
    assert db.session.scalar(known) is None


def test_each_type_comes_back_as_it_was(hospital):
    values: dict[str, Any] = {
        "text": "ä" * 1000,
        "raw": b"\0\xff",
        "whole": -(2**70),
        "exact": Decimal("0.10"),
        "yes": False,
        "day": date(2026, 11, 30),
        "moment": datetime(2026, 11, 30, 12, 0, 0, 5, tzinfo=UTC),
        "other": uuid.uuid4(),
        "document": {"a": [1, None, "ß"]},
    }
    db.session.add(Sample(**values))
    db.session.commit()
    sample = db.session.scalars(select(Sample)).one()
    assert {name: getattr(sample, name) for name in values} == values


def test_a_default_is_encrypted(hospital):
    sample = Sample(text="x")
    db.session.add(sample)
    db.session.commit()
    assert sample.state == "new"
    assert (
        b"new"
        not in db.session.execute(text("SELECT state FROM test_samples")).scalar_one()
    )


def test_a_key_that_the_service_assigns_needs_one_statement(hospital, statements):
    statements.clear()
    db.session.add(Sample(text="x"))
    db.session.add(Patient(diagnosis="x"))
    db.session.flush()
    kinds = sorted(
        (s.split()[0], "test_samples" in s)
        for s in statements
        if " INTO " in s or "UPDATE" in s
    )
    assert kinds == [("INSERT", False), ("INSERT", True), ("UPDATE", False)]


def test_many_rows_are_bound_in_one_statement(hospital, statements):
    db.session.add_all(
        Patient(number=str(n), diagnosis=f"{n} colds") for n in range(50)
    )
    statements.clear()
    db.session.commit()
    assert sum(s.startswith("UPDATE test_patients") for s in statements) == 1
    found = db.session.execute(select(Patient.number, Patient.diagnosis))
    assert {(n, d) for n, d in found} == {(str(n), f"{n} colds") for n in range(50)}


def test_a_change_is_encrypted_anew(hospital):
    row = add(diagnosis="flu")
    before = stored("diagnosis", row)
    read(row).diagnosis = "cold"
    db.session.commit()
    assert stored("diagnosis", row) != before
    db.session.expunge_all()
    assert (read(row).diagnosis, read(row).number) == ("cold", "A-42")
    read(row).diagnosis = None
    db.session.commit()
    assert stored("diagnosis", row) is None


def test_the_same_value_again_writes_nothing(hospital, statements):
    row = add(diagnosis="flu")
    patient = read(row)
    statements.clear()
    patient.diagnosis = patient.diagnosis
    db.session.commit()
    assert not [s for s in statements if s.startswith("UPDATE")]


# --- Bound to its place ---------------------------------------------------------------


def swap(column: str, one: int, other: int) -> None:
    first, second = stored(column, one), stored(column, other)
    for row, value in ((one, second), (other, first)):
        statement = text(f"UPDATE test_patients SET {column} = :value WHERE id = {row}")
        db.session.execute(statement, {"value": value})
    db.session.commit()


def test_swapped_values_of_two_rows_are_detected(hospital):
    one, other = add("1", "flu"), add("2", "cold")
    swap("diagnosis", one, other)
    queries = [
        select(Patient),
        select(Patient.diagnosis),
        select(aliased(Patient).diagnosis.label("what")),
        select(select(Patient.id, Patient.diagnosis).subquery().c.diagnosis),
    ]
    for query in queries:
        with pytest.raises(crypto.DecryptionError, match=r"test_patients\.diagnosis:"):
            db.session.execute(query).all()


def test_a_value_of_another_column_is_detected(hospital):
    row = add("1", "flu")
    db.session.execute(text("UPDATE test_patients SET diagnosis = number"))
    with pytest.raises(crypto.DecryptionError):
        read(row)


def test_a_changed_value_is_detected(hospital):
    row = add()
    changed = bytearray(stored("diagnosis", row))
    changed[-1] ^= 1
    db.session.execute(
        text("UPDATE test_patients SET diagnosis = :v"), {"v": bytes(changed)}
    )
    with pytest.raises(crypto.DecryptionError):
        read(row)


def test_a_row_with_another_number_is_detected(hospital):
    row = add()
    db.session.execute(text(f"UPDATE test_patients SET id = {row + 1}"))
    with pytest.raises(crypto.DecryptionError):
        read(row + 1)


def test_another_key_reads_nothing(hospital, monkeypatch):
    row = add()
    use_keys(hospital, monkeypatch, testing=b"x" * 32)
    with pytest.raises(crypto.DecryptionError):
        read(row)


def test_values_stay_bound_to_the_former_name_of_a_renamed_column(hospital):
    row = add(diagnosis="flu")

    class Renamed(DeclarativeBase):
        pass

    class Person(Renamed):
        __tablename__ = "test_patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        ailment: Mapped[str | None] = mapped_column(
            "diagnosis", Encrypted(String(200), place="test_patients.diagnosis")
        )

    person = db.session.get(Person, row)
    assert person
    assert person.ailment == "flu"


# --- Each way to read -----------------------------------------------------------------


def test_every_way_to_read_returns_the_value(hospital):
    row = add("1", "flu")
    other = aliased(Patient)
    inner = select(Patient).subquery()
    queries: list[Any] = [
        select(Patient.diagnosis),
        select(Patient.diagnosis.label("what")),
        select(other.diagnosis),
        select(aliased(Patient, inner).diagnosis),
        select(inner.c.diagnosis),
        union(select(Patient.diagnosis), select(other.diagnosis)),
        select(Patient.__table__.c.diagnosis),
        update(Patient).values(ward_id=None).returning(Patient.diagnosis),
    ]
    for query in queries:
        assert db.session.scalars(query).all() == ["flu"], query
    patient = read(row)
    db.session.expire(patient)
    assert patient.diagnosis == "flu"


def test_a_value_without_its_row_is_not_read(hospital):
    add()
    for query in (
        select(func.max(Patient.diagnosis)),
        select(select(Patient.diagnosis).subquery().c.diagnosis),
    ):
        with pytest.raises(TypeError, match="without its row"):
            db.session.scalars(query).all()


# --- What is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    "compare",
    [
        lambda column: column == "flu",
        lambda column: column.like("f%"),
        lambda column: column.in_(["flu"]),
        lambda column: column < "g",
        lambda column: column.desc(),
    ],
)
def test_a_comparison_in_the_database_is_refused(hospital, compare):
    with pytest.raises((TypeError, StatementError), match=r"BlindIndex|is encrypted"):
        db.session.execute(select(Patient.id).where(compare(Patient.diagnosis)))


@pytest.mark.parametrize(
    "write",
    [
        lambda: db.session.execute(insert(Patient).values(diagnosis="flu")),
        lambda: db.session.execute(insert(Patient), [{"diagnosis": "flu"}]),
        lambda: db.session.execute(update(Patient).values(diagnosis="flu")),
        lambda: db.session.bulk_insert_mappings(Patient, [{"diagnosis": "flu"}]),
    ],
)
def test_a_write_that_does_not_know_the_row_is_refused(hospital, write):
    add()
    with pytest.raises(StatementError, match="set the attribute of an object"):
        write()


@pytest.mark.parametrize("value", ["x" * 201, 5, b"flu"])
def test_a_value_that_does_not_fit_is_refused(hospital, value):
    db.session.add(Patient(diagnosis=value))
    with pytest.raises(StatementError, match=r"the column accepts|does not accept"):
        db.session.commit()


def test_a_table_needs_a_key_with_a_fixed_text(hospital):
    class Other(DeclarativeBase):
        pass

    class Visit(Other):
        __tablename__ = "test_visits"
        patient: Mapped[int] = mapped_column(primary_key=True)
        day: Mapped[int] = mapped_column(primary_key=True)
        note: Mapped[str] = mapped_column(Encrypted(String))

    with pytest.raises(TypeError, match="primary key of one column"):
        Other.registry.configure()


def test_the_key_of_a_row_with_encrypted_values_stays(hospital):
    patient = read(add())
    patient.id += 1
    with pytest.raises(TypeError, match="can't change"):
        db.session.flush()


# --- Objects after a failure ----------------------------------------------------------


def test_an_object_keeps_its_plain_values_when_its_flush_fails(hospital):
    add("1", "flu")
    patient = Patient(number="1", diagnosis="cold")
    db.session.add(patient)
    with pytest.raises(IntegrityError):
        db.session.commit()
    db.session.rollback()
    assert (patient.number, patient.diagnosis) == ("1", "cold")
    patient.number = "2"
    db.session.add(patient)
    db.session.commit()
    assert (patient.number, patient.diagnosis) == ("2", "cold")


def test_a_failure_in_a_savepoint_leaves_the_rest(hospital):
    first = Patient(number="1", diagnosis="flu")
    db.session.add(first)
    with pytest.raises(IntegrityError), db.session.begin_nested():
        db.session.add(Patient(number="1", diagnosis="cold"))
    db.session.commit()
    assert db.session.scalars(select(Patient.diagnosis)).all() == ["flu"]


def test_values_are_readable_between_flush_and_commit(hospital):
    patient = Patient(number="1", diagnosis="flu")
    db.session.add(patient)
    db.session.flush()
    assert patient.diagnosis == "flu"
    patient.diagnosis = "cold"
    db.session.flush()
    assert (patient.diagnosis, patient.number) == ("cold", "1")
    db.session.refresh(patient)
    assert patient.diagnosis == "cold"


# --- The blind index ------------------------------------------------------------------


def test_a_blind_index_finds_equal_values(hospital):
    row = add("A-42")
    add("B-1")
    find = select(Patient.id).where
    assert db.session.scalars(find(Patient.number_index == "a-42")).all() == [row]
    assert db.session.scalars(find(Patient.number_index.in_(["A-42", "x"]))).all() == [
        row
    ]
    assert db.session.scalars(find(Patient.number_index == "A-4")).all() == []
    assert (
        db.session.scalars(select(Patient).filter_by(number_index="A-42")).one().id
        == row
    )


def test_a_blind_index_follows_the_value(hospital):
    row = add("A-42")
    read(row).number = "B-1"
    db.session.commit()
    find = select(Patient.id).where
    assert db.session.scalars(find(Patient.number_index == "A-42")).all() == []
    assert db.session.scalars(find(Patient.number_index == "B-1")).all() == [row]


def test_a_blind_index_can_be_unique(hospital):
    add("A-42")
    with pytest.raises(IntegrityError):
        add("a-42")


def test_a_blind_index_reveals_nothing_without_a_key(hospital, monkeypatch):
    row = add("A-42")
    digest = stored("number_index", row)
    assert len(digest) == len("testing:") + 32
    use_keys(hospital, monkeypatch, other=b"x" * 32)
    kind: Any = Patient.__table__.c.number_index.type
    assert kind.all("A-42") != [digest]


def test_a_blind_index_finds_values_of_older_keys(hospital, monkeypatch):
    row = add("A-42")
    old = hospital.extensions["bulwark"].encryption_keys["testing"]
    use_keys(hospital, monkeypatch, newer=b"x" * 32, testing=old)
    new = add("B-1")
    find = select(Patient.id).where
    assert db.session.scalars(find(Patient.number_index == "A-42")).all() == [row]
    assert db.session.scalars(
        find(Patient.number_index.in_(["A-42", "B-1"])).order_by(Patient.id)
    ).all() == [row, new]
    assert db.session.scalars(find(Patient.number_index != "A-42")).all() == [new]
    assert read(row).number == "A-42"


def test_a_blind_index_does_not_sort(hospital):
    with pytest.raises(TypeError, match="only find equals"):
        _ = Patient.number_index < "A"


def test_a_blind_index_needs_an_encrypted_column(hospital):
    class Other(DeclarativeBase):
        pass

    class Visit(Other):
        __tablename__ = "test_visits"
        id: Mapped[int] = mapped_column(primary_key=True)
        note_index: Mapped[bytes] = mapped_column(BlindIndex("note"))

    with pytest.raises(TypeError, match="names no encrypted column"):
        _ = Visit.note_index == "x"


# --- Around it ------------------------------------------------------------------------


def test_the_log_redacts_fields_of_encrypted_columns():
    assert {"diagnosis", "number", "number_index"} <= set(names_of(Base.metadata))


def test_one_type_serves_two_columns(hospital):
    shared = Encrypted(Integer)

    class Other(DeclarativeBase):
        pass

    class Visit(Other):
        __tablename__ = "test_visits"
        id: Mapped[int] = mapped_column(primary_key=True)
        a: Mapped[int] = mapped_column(shared)
        b: Mapped[int] = mapped_column(shared)

    columns = Visit.__table__.c
    places = [column.type.place for column in (columns.a, columns.b)]  # type: ignore[attr-defined]
    assert places == ["test_visits.a", "test_visits.b"]


def test_a_logged_error_has_no_plain_value(hospital, caplog):
    caplog.set_level(logging.DEBUG)
    db.session.add(Patient(diagnosis="influenza" * 30))
    with pytest.raises(StatementError) as caught:
        db.session.commit()
    assert "influenza" not in f"{caught.value!r} {caught.value} {caplog.text}"


def test_other_models_are_not_slowed_down(hospital, statements):
    statements.clear()
    db.session.add(Ward(name="x"))
    db.session.commit()
    assert len([s for s in statements if "test_wards" in s]) == 1
