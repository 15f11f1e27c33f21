"""Measures encrypted columns: inserting, reading and finding rows, space, rotation.

The time is that of the service's process alone: without waiting, and on PostgreSQL
without the server's.

    .venv/bin/python -m tests.benchmarks.encryption PYTHON [rows]

PYTHON is the one in the .venv of a service. On SQLite and on PostgreSQL, it stores rows
with two texts of 40 characters, 20,000 by default, in plain columns, in encrypted ones,
and in encrypted ones with a blind index.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.servers import Postgres

# Runs in the service.
MEASURE = """
import sys, time, uuid
from dataclasses import replace
from sqlalchemy import String, select, text
from sqlalchemy.orm import Mapped, mapped_column
from app import create_app
from bulwark import BlindIndex, Encrypted, Model, db
from bulwark.jobs import queue
from bulwark.ops.keys import stores

class Plain(Model):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), index=True)
    note: Mapped[str] = mapped_column(String(40))

class Sealed(Model):
    __tablename__ = "sealed"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Encrypted(String(40)))
    note: Mapped[str] = mapped_column(Encrypted(String(40)))

class OwnKey(Model):
    __tablename__ = "sealed_own_key"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(Encrypted(String(40)))
    note: Mapped[str] = mapped_column(Encrypted(String(40)))

class Indexed(Model):
    __tablename__ = "sealed_indexed"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Encrypted(String(40)))
    name_index: Mapped[bytes] = mapped_column(BlindIndex("name"), index=True)
    note: Mapped[str] = mapped_column(Encrypted(String(40)))

app, rows = create_app(), int(sys.argv[1])

def micros(start, count):
    return (time.process_time() - start) / count * 1e6

with app.app_context():
    db.metadata.create_all(db.engine)
    queue.create_tables()
    for model in (Plain, Sealed, OwnKey, Indexed):
        texts = [f"{n:040}" for n in range(rows)]
        start = time.process_time()
        for first in range(0, rows, 1000):
            some = texts[first : first + 1000]
            db.session.add_all(model(name=t, note=t) for t in some)
            db.session.commit()
            db.session.expunge_all()
        insert = micros(start, rows)
        start = time.process_time()
        assert len(db.session.execute(select(model.name, model.note)).all()) == rows
        read = micros(start, rows)
        start, find = time.process_time(), float("nan")
        if model in (Plain, Indexed):
            column = model.name if model is Plain else model.name_index
            for t in texts[:: max(1, rows // 500)]:
                assert db.session.scalars(select(model.id).where(column == t)).one()
            find = micros(start, len(texts[:: max(1, rows // 500)]))

        raw = text(f"SELECT avg(length(name)) FROM {model.__tablename__}")
        length = db.session.execute(raw).scalar()
        figures = f"{insert:8.0f}{read:8.0f}{find:8.0f}{length:8.0f}"
        print(f"  {model.__tablename__:<16}{figures}")
    former = app.extensions["bulwark"]
    keys = {"2": b"n" * 32, **former.encryption_keys}
    app.extensions["bulwark"] = replace(former, encryption_keys=keys)
    cpu, start, renewed = time.process_time(), time.perf_counter(), 0
    for store in stores.stores():
        renewed += sum(store.renew())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - start
    print(f"  rotation of a million values: {cpu / renewed * 1e6:.0f} s of CPU,")
    print(f"  {wall / renewed * 1e6:.0f} s in all")
"""


def main(python: Path, rows: int) -> None:
    service = python.absolute().parent.parent.parent
    with tempfile.TemporaryDirectory() as folder, Postgres() as server:
        for url in (f"sqlite:///{folder}/encryption.db", server.database()):
            environment = os.environ | {
                "APP_ENV": "testing",
                "APP_DATABASE_URL": url,
                "APP_METRICS_FOLDER": f"{folder}/metrics",
                "APP_LOG_LEVEL": "ERROR",
            }
            print(f"{url.partition(':')[0]}: {rows:,} rows; microseconds a row")
            print(
                f"  {'':<16}{'insert':>8}{'read':>8}{'find':>8}{'bytes':>8}", flush=True
            )
            command = [str(python.absolute()), "-c", MEASURE, str(rows)]
            subprocess.run(command, cwd=service, env=environment, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20_000)
