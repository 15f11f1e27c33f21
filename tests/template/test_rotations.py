"""bin/secrets rotate: each step in its order, and the service starts after each."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMES = {
    "encryption": "APP_ENCRYPTION_KEYS",
    "signing": "APP_SECRET_KEY",
    "pepper": "APP_PASSWORD_PEPPER",
}


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Return a folder with what bin/secrets needs, and its secrets."""
    (tmp_path / "bin").mkdir()
    for name in ("secrets", "rotations.py"):
        shutil.copy(ROOT / "template/bin" / name, tmp_path / "bin")
    (tmp_path / "service.toml").write_text('database = "sqlite"\n')
    assert secrets(tmp_path).returncode == 0
    return tmp_path


def secrets(service: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "bin/secrets", *arguments]
    return subprocess.run(
        command, cwd=service, capture_output=True, text=True, check=False
    )


def values(service: Path, name: str) -> list[str]:
    """Return the values of a key: the one in use, then those that are accepted."""
    text = (service / ".env.production").read_text()
    found = re.findall(rf"^{NAMES[name]}(?:_FALLBACKS)?=(.*)$", text, re.MULTILINE)
    return ",".join(found).split(",")


@pytest.mark.parametrize("name", NAMES)
def test_a_rotation_adds_uses_and_removes(service: Path, name: str) -> None:
    (old,) = values(service, name)
    assert secrets(service, "rotate", name, "add").returncode == 0
    first, new = values(service, name)
    assert first == old
    assert secrets(service, "rotate", name, "use").returncode == 0
    assert values(service, name) == [new, old]
    assert secrets(service, "rotate", name, "remove").returncode == 0
    assert values(service, name) == [new]
    for step in ("add", "use", "remove"):
        assert secrets(service, "rotate", name, step).returncode == 0
    (third,) = values(service, name)
    assert len({old, new, third}) == 3


@pytest.mark.parametrize("name", ["signing", "pepper"])
@pytest.mark.parametrize("step", ["add", "use", "remove"])
def test_no_part_of_a_value_is_taken_for_a_value(
    service: Path, name: str, step: str
) -> None:
    file = service / ".env.production"
    (made,) = values(service, name)
    file.write_text(file.read_text().replace(made, f"{made},{made}"))
    before = file.read_bytes()
    refused = secrets(service, "rotate", name, step)
    assert refused.returncode == 1
    assert "comma" in refused.stderr
    assert made not in refused.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("done", "wrong", "following"),
    [
        ([], "use", "`add`"),
        ([], "remove", "`add`"),
        (["add"], "add", "`use`"),
        (["add"], "remove", "`use`"),
        (["add", "use"], "use", "`remove`"),
        (["add", "use"], "add", "`remove`"),
    ],
)
def test_a_step_out_of_order_changes_nothing(
    service: Path, name: str, done: list[str], wrong: str, following: str
) -> None:
    for step in done:
        secrets(service, "rotate", name, step)
    before = (service / ".env.production").read_bytes()
    refused = secrets(service, "rotate", name, wrong)
    assert refused.returncode == 1
    assert following in refused.stderr
    assert (service / ".env.production").read_bytes() == before


def test_no_value_is_printed_and_nothing_else_changes(service: Path) -> None:
    file = service / ".env.production"
    file.write_text("# Ours.\r\nAPP_NAME=Shop\r\n" + file.read_text())
    before = file.read_text().splitlines()
    said = ""
    for name in NAMES:
        for step in ("add", "use", "remove"):
            done = secrets(service, "rotate", name, step)
            said += done.stdout + done.stderr
            for value in values(service, name):
                assert value.rpartition(":")[2] not in said
    after = file.read_text().splitlines()
    kept = [line for line in before if not line.startswith(tuple(NAMES.values()))]
    assert [line for line in after if line in kept] == kept
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_set_elsewhere_is_rotated_there(service: Path) -> None:
    file = service / ".env.production"
    file.write_text(file.read_text().replace("APP_SECRET_KEY=", "# APP_SECRET_KEY="))
    refused = secrets(service, "rotate", "signing", "add")
    assert refused.returncode == 1
    assert "APP_SECRET_KEY is not set" in refused.stderr


def test_production_starts_with_the_values_of_each_step(service: Path) -> None:
    load = "from pathlib import Path; from bulwark import settings;"
    load += "c, _ = settings.load(Path('.')); print(len(c.encryption_keys),"
    load += " len(c.secret_key_fallbacks), len(c.password_pepper_fallbacks))"
    environment = {
        name: value for name, value in os.environ.items() if "APP_" not in name
    }
    environment |= {
        "APP_ENV": "production",
        "APP_ALLOWED_HOSTS": "shop.test",
        "APP_MAIL_URL": "smtp://user:pass@mail.shop.test:587",
        "APP_DATABASE_URL": f"sqlite:///{service}/shop.db",
        "ENV_FILE": str(service / ".env.production"),
    }
    for step, accepted in (("add", "2 1 1"), ("use", "2 1 1"), ("remove", "1 0 0")):
        for name in NAMES:
            assert secrets(service, "rotate", name, step).returncode == 0
        started = subprocess.run(
            [python_of_the_template(), "-c", load],
            cwd=ROOT / "template",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert started.stdout.strip() == accepted, started.stderr


def python_of_the_template() -> Path:
    """Return a Python with the service's packages; skip the test without one."""
    python = ROOT / "template/.venv/bin/python"
    if not python.exists():
        pytest.skip("template/.venv does not exist: run template/bin/setup")
    return python
