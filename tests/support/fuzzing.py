"""Schemathesis against the API of a running service."""

import os
import subprocess

from tests.support.guide import Service
from tests.support.servers import free_port, wait_for_port

# How often schemathesis tries each view, apart from the values that it derives from
# the document.
EXAMPLES = "20"
# By chance, schemathesis sends the same key with two requests.
HOOKS = """
import re
import uuid
import schemathesis

def with_a_new_key(request):
    request.headers["Idempotency-Key"] = str(uuid.uuid4())
    return request

@schemathesis.hook
def before_call(context, case, kwargs):
    key = (case.headers or {}).get("Idempotency-Key", "")
    if re.fullmatch("[!-~]{1,255}", key):
        kwargs["auth"] = with_a_new_key
"""
ADD_PERSON = 'email = add_person(app, "zoe@example.org")'
# The app is created before tests/conftest.py is imported, which sets APP_ENV.
TOKEN = """
from app import create_app
app = create_app()
from tests.conftest import add_person
from tests.support import make_token
{add}
print(make_token(app, email, *{permissions!r}))
"""


def attack(
    team: Service,
    *permissions: str,
    add: str = ADD_PERSON,
    **environment: str,
) -> None:
    """Run every check of schemathesis against the service.

    Args:
        team: the service.
        permissions: those of the token.
        add: Python that adds the owner of the token, `email`, to `app`.
        environment: settings of the service.
    """
    environment |= {"APP_ENV": "development", "APP_PROXY_HOPS": "1"}
    team.run("bin/flask", "prepare", **environment)
    code = TOKEN.format(add=add, permissions=permissions)
    token = team.python(code, **environment).splitlines()[-1]
    hooks = team.folder / "instance/hooks.py"
    hooks.write_text(HOOKS)
    port = free_port()
    command = [".venv/bin/gunicorn", "-b", f"127.0.0.1:{port}", "wsgi:app"]
    with subprocess.Popen(
        command,
        cwd=team.folder,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            wait_for_port(port, server)
            headers = (
                f"Authorization: Bearer {token}",
                *("Host: localhost", "X-Forwarded-Proto: https"),
                "X-Forwarded-For: 127.0.0.1",
            )
            team.run(
                *(os.environ["UV"], "tool", "run", "schemathesis==4.32.5", "run"),
                f"http://127.0.0.1:{port}/api/v1/openapi.json",
                *("--checks", "all", "--max-examples", EXAMPLES, "--no-color"),
                *(part for header in headers for part in ("--header", header)),
                SCHEMATHESIS_HOOKS=str(hooks),
            )
        finally:
            server.terminate()
