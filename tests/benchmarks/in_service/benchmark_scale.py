"""Fills a database with users, sessions and audit rows, then times signed-in requests.

    benchmark_scale.py fill USERS             after benchmark_accounts.py
    benchmark_scale.py time USERS REQUESTS    microseconds a request

On PostgreSQL. Each request has the session of another user. Prints JSON.
"""

import json
import os
import random
import sys
import time
from io import BytesIO
from pathlib import Path

# The service writes its log to stdout: as in production, but to nobody.
answer, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115

from benchmark_accounts import PROXY  # noqa: E402
from benchmark_views import app  # noqa: E402
from bulwark.database import db  # noqa: E402
from sqlalchemy import text  # noqa: E402
from werkzeug.test import EnvironBuilder  # noqa: E402

HOST = app.config["TRUSTED_HOSTS"][0]
NAME = "md5(n::text)"
FIRST = "SELECT fs_uniquifier FROM users ORDER BY id LIMIT 1"
# The rows that benchmark_accounts.py made are copied; these columns differ.
CHANGES = {
    "users": {
        "id": "n",
        "email": "'user' || n || '@example.org'",
        "fs_uniquifier": NAME,
        "fs_webauthn_user_handle": NAME,
    },
    "sessions": {
        "id": "n",
        "user_id": "n",
        "token_hash": "encode(sha256(('token' || n)::bytea), 'hex')",
        "data": f"replace(data::text, ({FIRST}), {NAME})::json",
    },
    "security_events": {"id": "n", "user_id": "n"},
    "audit_chain": {"position": "n", "event_id": "n"},
}
BEGIN = 1000  # above the ids of what benchmark_accounts.py made


def fill(users: int) -> dict[str, int]:
    """Copy the first row of each table until so many users have one."""
    with app.app_context():
        return _fill(users)


def _fill(users: int) -> dict[str, int]:
    numbers = f"generate_series({BEGIN}, {BEGIN + users - 1}) AS n"
    for name, changes in CHANGES.items():
        names = [
            c.name for c in db.metadata.tables[name].columns if c.name not in changes
        ]
        columns = ", ".join([*(f'"{column}"' for column in names), *changes])
        values = ", ".join(
            [*(f'first."{column}"' for column in names), *changes.values()]
        )
        order = next(iter(db.metadata.tables[name].primary_key.columns)).name
        first = f"(SELECT * FROM {name} ORDER BY {order} LIMIT 1) AS first"
        insert = (
            f"INSERT INTO {name} ({columns}) SELECT {values} FROM {first}, {numbers}"
        )
        db.session.execute(text(insert))
    db.session.execute(
        text(
            "INSERT INTO users_roles (user_id, role_id)"
            f" SELECT n, role_id FROM users_roles, {numbers}"
        )
    )
    db.session.commit()
    with db.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("VACUUM ANALYZE"))
    return {"users": users}


def send(number: int) -> None:
    """Send a request with the session of one user."""
    cookie = f"{app.config['SESSION_COOKIE_NAME']}=token{number}"
    builder = EnvironBuilder(
        path="/benchmark/me",
        base_url=f"http://{HOST}",
        headers=PROXY | {"Cookie": cookie, "Accept": "application/json"},
    )
    environ = builder.get_environ() | {"wsgi.input": BytesIO()}
    statuses: list[str] = []
    body = b"".join(app(environ, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"], (statuses, body)
    assert f'"user{number}@example.org"'.encode() in body, body


def database_process() -> Path:
    """Return the folder of the process that serves this process's connection."""
    with app.app_context():
        number = db.session.scalar(text("SELECT pg_backend_pid()"))
        db.session.rollback()
    return Path(f"/proc/{number}")


def seconds(process: Path) -> float:
    """Return the processor time that a process of one thread has used."""
    return int((process / "schedstat").read_text().split()[0]) / 1e9


def time_requests(users: int, requests: int) -> dict[str, float]:
    """Return the microseconds of processor time that a request takes."""
    database = database_process()
    random.seed(1)
    for _ in range(max(20, requests // 10)):
        send(random.randrange(BEGIN, BEGIN + users))
    before, begun = seconds(database), time.process_time()
    for _ in range(requests):
        send(random.randrange(BEGIN, BEGIN + users))
    app_time, database_time = time.process_time() - begun, seconds(database) - before
    return {
        "app": app_time / requests * 1e6,
        "database": database_time / requests * 1e6,
    }


if __name__ == "__main__":
    mode, *numbers = sys.argv[1:]
    modes = {"fill": fill, "time": time_requests}
    figures = modes[mode](*map(int, numbers))
    print(json.dumps(figures), file=answer, flush=True)
