"""Measures whether many accounts slow a service down: 500 against 100,000.

    .venv/bin/python -m tests.benchmarks.users [.venv of a service]

Fills a service of this template, on SQLite and on PostgreSQL, with accounts that have
two roles and a session each. Times what each request does first, loading a session with
its user and roles, and pages of the list of users. Takes two minutes, and a while to
install a .venv where none is given.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.servers import Postgres

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 500, 100_000
# Runs in the service.
MEASURE = '''
import hashlib, json, random, statistics, sys, time

from flask import request
from sqlalchemy import insert, select, text

from app import create_app
from app.models import User
from bulwark.database import db, utcnow
from bulwark.identity.models import Role, users_roles
from bulwark.identity.sessions import UserSession

count, rounds = int(sys.argv[1]), 2000
app = create_app()


def fill():
    now = utcnow()
    db.create_all()
    for n in (1, 2):
        db.session.add(Role(id=n, name=f"role {n}", permissions=["users:read"]))
    db.session.flush()
    numbers = range(1, count + 1)
    users = [
        {
            "id": n, "email": f"person{n}@example.org", "active": True,
            "fs_uniquifier": f"{n:032d}", "created_at": now,
            "second_factor_required": False,
        }
        for n in numbers
    ]
    sessions = [
        {
            "token_hash": hashlib.sha256(f"token{n}".encode()).hexdigest(),
            "user_id": n, "signed_in": True, "created_at": now, "last_used_at": now,
            "data": {"_user_id": f"{n:032d}", "_fresh": True},
        }
        for n in numbers
    ]
    db.session.execute(insert(User), users)
    db.session.execute(insert(UserSession), sessions)
    held = [{"user_id": n, "role_id": r} for n in numbers for r in (1, 2)]
    db.session.execute(insert(users_roles), held)
    db.session.commit()
    db.session.execute(text("ANALYZE"))
    db.session.commit()


def load(number):
    """Load a session with its user and roles, as a request does; milliseconds."""
    cookie = {"Cookie": f"__Host-session=token{number}"}
    with app.test_request_context("/", headers=cookie):
        db.session.remove()
        begun = time.perf_counter()
        opened = app.session_interface.open_session(app, request)
        roles = {role.name for role in opened.user.roles}
        took = (time.perf_counter() - begun) * 1000
        assert len(roles) == 2
    return took


def listed(query):
    """Make a page of the list of users; milliseconds."""
    from bulwark.admin import users

    headers = {"Accept": "application/json"}
    with app.test_request_context(f"/admin/users?{query}", headers=headers):
        begun = time.perf_counter()
        users.list_users()
        return (time.perf_counter() - begun) * 1000


with app.app_context():
    fill()
random.seed(1)
times = [load(random.randint(1, count)) for _ in range(rounds + 200)][200:]
pages = {
    "the first page": "",
    "a later page": f"before={count // 2}",
    "a whole address": f"q=person{count // 2}@example.org",
    "a part of one": f"q=son{count // 2}@",
}
# Of the quickest tenth the slowest: other work on the machine only adds.
figures = {"a session with user and roles": statistics.quantiles(times, n=10)[0]}
for name, query in pages.items():
    figures[name] = statistics.quantiles([listed(query) for _ in range(30)], n=10)[0]
print(json.dumps(figures))
'''


def measure(python: Path, count: int, url: str) -> dict[str, float]:
    """Return the milliseconds that each thing takes among so many accounts."""
    ran = subprocess.run(
        [python, "-c", MEASURE, str(count)],
        cwd=ROOT / "template",
        env=os.environ
        | {"APP_ENV": "testing", "APP_DATABASE_URL": url, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        sys.exit(ran.stderr)
    figures: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return figures


def show(kind: str, few: dict[str, float], many: dict[str, float]) -> None:
    """Print what became slower, and how much."""
    print(f"{kind}, milliseconds among {FEW:,} and among {MANY:,}:")
    for name, before in few.items():
        after = many[name]
        print(f"  {name}: {before:.2f} and {after:.2f}, {after / before:.2f} ×")


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = Path(sys.argv[1]) if len(sys.argv) > 1 else install(folder)
        python = environment.resolve() / "bin/python"
        few, many = (
            measure(python, count, f"sqlite:///{folder}/{count}.db")
            for count in (FEW, MANY)
        )
        show("SQLite", few, many)
        with Postgres() as server:
            few, many = (
                measure(python, count, server.database()) for count in (FEW, MANY)
            )
        show("PostgreSQL", few, many)


def install(folder: Path) -> Path:
    """Install what a service needs; return where."""
    uv = os.environ.get("UV", "uv")
    target = {"UV_PROJECT_ENVIRONMENT": str(folder / ".venv")}
    project = folder / "project"
    project.mkdir()
    content = (ROOT / "template/pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(content)
    sync = [uv, "sync", "--quiet", "--no-dev"]
    subprocess.run(sync, cwd=project, env=os.environ | target, check=True)
    return folder / ".venv"


if __name__ == "__main__":
    main()
