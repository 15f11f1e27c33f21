"""Models with encrypted columns, for tests. Their tables are not the service's."""

import uuid
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import (
    JSON,
    Boolean,
    Date,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Uuid,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bulwark.database import NAMING, BlindIndex, Digest, Encrypted, UTCDateTime, db


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class Ward(Base):
    __tablename__ = "test_wards"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)


class Patient(Base):
    __tablename__ = "test_patients"

    id: Mapped[int] = mapped_column(primary_key=True)
    ward_id: Mapped[int | None] = mapped_column(ForeignKey("test_wards.id"))
    number: Mapped[str | None] = mapped_column(Encrypted(String(20)))
    number_index: Mapped[Digest | None] = mapped_column(
        BlindIndex("number", normalize=str.casefold), unique=True
    )
    diagnosis: Mapped[str | None] = mapped_column(Encrypted(String(200)))


class Sample(Base):
    __tablename__ = "test_samples"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    text: Mapped[str] = mapped_column(Encrypted(String))
    raw: Mapped[bytes | None] = mapped_column(Encrypted(LargeBinary))
    whole: Mapped[int | None] = mapped_column(Encrypted(Integer))
    exact: Mapped[Decimal | None] = mapped_column(Encrypted(Numeric))
    yes: Mapped[bool | None] = mapped_column(Encrypted(Boolean))
    day: Mapped[date | None] = mapped_column(Encrypted(Date))
    moment: Mapped[datetime | None] = mapped_column(Encrypted(UTCDateTime))
    other: Mapped[uuid.UUID | None] = mapped_column(Encrypted(Uuid))
    document: Mapped[Any | None] = mapped_column(Encrypted(JSON))
    state: Mapped[str] = mapped_column(Encrypted(String), default="new")


@pytest.fixture
def hospital(app: Flask) -> Iterator[Flask]:
    """The app in a context, with the tables of these models."""
    with app.app_context():
        Base.metadata.create_all(db.engine)
        yield app
        db.session.rollback()
        Base.metadata.drop_all(db.engine)
