"""Settings: where they come from, and what production refuses to start with."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from bulwark import settings
from bulwark.settings.fields import setting, variable
from tests.bulwark.conftest import GOOD, STRONG, problems
from tests.conftest import ROOT


def test_production_starts_with_good_settings(production: Path):
    assert problems(production) == ""


@pytest.mark.parametrize(
    "name",
    ["APP_SECRET_KEY", "APP_PASSWORD_PEPPER", "APP_ENCRYPTION_KEYS", "APP_MAIL_URL"],
)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_is_named(
    production: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
):
    monkeypatch.delenv(name)
    if value is not None:
        monkeypatch.setenv(name, value)
    assert name in problems(production)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("APP_SECRET_KEY", "short", "short"),
        ("APP_SECRET_KEY", "a" * 64, "repetitive"),
        ("APP_SECRET_KEY", "change-me-" + "x1y2z3" * 10, "example"),
        ("APP_SECRET_KEY", "your-secret-key-here-" + "x1y2z3" * 10, "example"),
        ("APP_SECRET_KEY", f"development-{STRONG}", "development"),
        ("APP_PASSWORD_PEPPER", "pepper", "short"),
        ("APP_SECRET_KEY_FALLBACKS", "old", "short"),
        ("APP_ENCRYPTION_KEYS", "1:short", "32-byte"),
        ("APP_ENCRYPTION_KEYS", "1:" + "A" * 43, "repetitive"),
        (
            "APP_ENCRYPTION_KEYS",
            f"development:{STRONG[:43]}",
            "development",
        ),
        ("APP_ALLOWED_HOSTS", "", "APP_ALLOWED_HOSTS is missing"),
        ("APP_ALLOWED_HOSTS", "*", "not one host name"),
        ("APP_ALLOWED_HOSTS", ".shop.test", "not one host name"),
        ("APP_ALLOWED_HOSTS", "https://shop.test/", "not one host name"),
        ("APP_ALLOWED_HOSTS", "shop.example.com", "example domain"),
        ("APP_DATABASE_URL", "postgresql://u:p@db.shop.test/shop", "verified TLS"),
        (
            "APP_UPLOADS_URL",
            "http://u:p@files.shop.test/shop?region=eu-1",
            "without TLS",
        ),
        (
            "APP_DATABASE_URL",
            "postgresql://u:p@db.shop.test/shop?sslmode=require",
            "verified TLS",
        ),
        (
            "APP_DATABASE_URL",
            "postgresql://u:p@/shop?host=db.shop.test",
            "verified TLS",
        ),
        (
            "APP_DATABASE_URL",
            "postgresql://u:p@localhost/shop?hostaddr=192.0.2.1",
            "verified TLS",
        ),
        (
            "APP_DATABASE_URL",
            "postgresql://u:p@/shop?host=localhost,db.shop.test",
            "verified TLS",
        ),
        ("APP_REDIS_URL", "redis://cache.shop.test:6379/0", "verified TLS"),
        (
            "APP_REDIS_URL",
            "rediss://cache.shop.test:6379/0?ssl_cert_reqs=none",
            "verified TLS",
        ),
        ("APP_MAIL_URL", "mailbox:/tmp/mail", "can't send emails"),
        ("APP_MAIL_URL", "smtp://", "contains no host"),
        ("APP_MAIL_URL", "smtp://mail.shop.test?tls=none", "must not have options"),
        ("APP_PASSWORD_MIN_LENGTH", "7", "from 8 to 64"),
        ("APP_PASSWORD_MIN_LENGTH", "many", "from 8 to 64"),
        ("APP_PROXY_HOPS", "-1", "from 0 to 5"),
        ("APP_LOG_LEVEL", "loud", "valid values are ['DEBUG'"),
        ("APP_DEBUG", "1", "not a setting"),
        ("APP_SECRT_KEY", "x", "did you mean APP_SECRET_KEY?"),
        ("FLASK_DEBUG", "1", "debugger"),
    ],
)
def test_an_unsafe_setting_stops_the_start(
    production: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    message: str,
):
    monkeypatch.setenv(name, value)
    assert message in problems(production)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_DATABASE_URL", "postgresql://u@/shop"),
        ("APP_DATABASE_URL", "postgresql://u:p@localhost/shop"),
        ("APP_DATABASE_URL", "postgresql://u@/shop?host=/var/run/postgresql"),
        ("APP_DATABASE_URL", "postgresql://u:p@db.shop.test/shop?sslmode=verify-full"),
        ("APP_REDIS_URL", "redis://localhost:6379/0"),
        ("APP_REDIS_URL", "rediss://cache.shop.test:6379/0"),
        ("APP_MAIL_URL", "smtps://user:pass@mail.shop.test:465"),
        ("APP_MAIL_URL", "smtp://localhost:25"),
        ("FLASK_DEBUG", "0"),
    ],
)
def test_a_safe_setting_is_taken(
    production: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    assert problems(production) == ""


def test_all_problems_are_listed_at_once_with_why_and_fix(
    production: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("APP_SECRET_KEY")
    monkeypatch.setenv("APP_MAIL_URL", "smtp://")
    monkeypatch.setenv("APP_COLOUR", "red")
    message = problems(production)
    assert message.startswith("3 problems in the production settings")
    assert message.count("why: ") == message.count("fix: ") == 3


def test_no_value_of_a_secret_is_shown(
    production: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("APP_SECRET_KEY", "development-canary")
    monkeypatch.setenv("APP_ENCRYPTION_KEYS", "1:canary")
    assert "canary" not in problems(production)
    monkeypatch.setenv("APP_SECRET_KEY", GOOD["APP_SECRET_KEY"])
    monkeypatch.setenv("APP_ENCRYPTION_KEYS", GOOD["APP_ENCRYPTION_KEYS"])
    loaded, _ = settings.load(production)
    shown = repr(loaded)
    assert not any(GOOD[n] in shown for n in GOOD if n != "APP_ALLOWED_HOSTS")


def test_the_environment_wins_over_a_secret_which_wins_over_the_file(
    production: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("APP_REDIS_URL", "APP_MAIL_SENDER", "APP_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    file = production / ".env.production"
    file.write_text(
        "# a comment\n\nAPP_LOG_LEVEL=ERROR\nAPP_MAIL_SENDER='file@shop.test'\n"
        "APP_REDIS_URL=redis://localhost/1\n"
    )
    file.chmod(0o600)
    folder = production / "secrets"
    folder.mkdir()
    for name, value in {
        "app_redis_url": "redis://localhost/2\n",
        "APP_LOG_LEVEL": "WARNING",
        "tls_key": "not ours",
    }.items():
        (folder / name).write_text(value)
        (folder / name).chmod(0o400)
    monkeypatch.setenv("APP_LOG_LEVEL", "DEBUG")
    loaded, _ = settings.load(production)
    assert loaded.mail_sender == "file@shop.test"
    assert loaded.redis_url == "redis://localhost/2"
    assert loaded.log_level == "DEBUG"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o602])
def test_secrets_that_others_can_reach_stop_the_start(production: Path, mode: int):
    file = production / ".env.production"
    file.write_text("APP_LOG_LEVEL=ERROR\n")
    file.chmod(mode)
    assert "can be read by every user" in problems(production)
    file.chmod(0o640)
    assert problems(production) == ""
    folder = production / "secrets"
    folder.mkdir()
    (folder / "app_log_level").write_text("ERROR")
    (folder / "app_log_level").chmod(mode)
    assert "can be read by every user" in problems(production)


def test_a_line_that_is_not_understood_stops_the_start(production: Path):
    file = production / ".env.production"
    file.write_text("export APP_LOG_LEVEL=ERROR\n")
    file.chmod(0o600)
    assert "line 1, is not NAME=value" in problems(production)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_env_file_of_any_editor_is_read(production: Path, mark: str, end: str):
    file = production / ".env.production"
    lines = ["APP_LOG_LEVEL='ERROR'", "", "# a comment", "APP_NAME=Zoë", ""]
    file.write_bytes((mark + end.join(lines)).encode())
    file.chmod(0o600)
    loaded, _ = settings.load(production)
    assert (loaded.log_level, loaded.name) == ("ERROR", "Zoë")


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("latin-1", "not UTF-8")],
)
@pytest.mark.parametrize("place", [".env.production", "secrets/app_name"])
def test_a_file_in_another_encoding_stops_the_start_by_name(
    production: Path, place: str, encoding: str, message: str
):
    file = production / place
    file.parent.mkdir(exist_ok=True)
    file.write_bytes("APP_NAME=Zoë\n".encode(encoding))
    file.chmod(0o600)
    found = problems(production)
    assert found.startswith("1 problem ")
    assert f"{file} is {message}" in found
    assert "save it as UTF-8" in found


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_can_not_be_read_stops_the_start_by_name(production: Path):
    file = production / ".env.production"
    file.write_text("APP_NAME=Zoë\n")
    file.chmod(0)
    assert f"{file} can't be read" in problems(production)


def test_a_misspelt_name_in_the_file_stops_the_start(production: Path):
    file = production / ".env.production"
    file.write_text("SECRET_KEY=x\n")
    file.chmod(0o600)
    assert "did you mean APP_SECRET_KEY?" in problems(production)


def test_the_environment_must_be_chosen(
    production: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("APP_ENV")
    assert "APP_ENV is not set" in problems(production)
    monkeypatch.setenv("APP_ENV", "prod")
    assert "APP_ENV is 'prod'" in problems(production)


def test_the_answers_are_the_defaults(
    production: Path, monkeypatch: pytest.MonkeyPatch
):
    (production / "service.toml").write_text(
        'name = "Shop"\nslug = "shop"\ndomain = "shop.test"\ndatabase = "postgresql"\n'
    )
    monkeypatch.delenv("APP_ALLOWED_HOSTS")
    monkeypatch.delenv("APP_DATABASE_URL")
    loaded, _ = settings.load(production)
    assert loaded.allowed_hosts == ("shop.test",)
    assert loaded.database_url == "postgresql://shop@/shop"
    assert loaded.sender == ("Shop", "no-reply@shop.test")


def three_letters(text: str) -> str:
    if len(text) != 3:
        raise ValueError("it has three letters")
    return text


@dataclass(frozen=True, kw_only=True)
class TeamSettings:
    currency: str = setting("what prices are in", default="EUR", cast=three_letters)


@dataclass(frozen=True, kw_only=True)
class CollidingSettings:
    secret_key: str = setting("taken")


def test_a_team_declares_a_setting(production: Path, monkeypatch: pytest.MonkeyPatch):
    assert settings.load(production, TeamSettings)[1].currency == "EUR"
    monkeypatch.setenv("APP_CURRENCY", "CHF")
    assert settings.load(production, TeamSettings)[1].currency == "CHF"
    monkeypatch.setenv("APP_CURRENCY", "Franken")
    assert "it has three letters" in problems(production, TeamSettings)


@dataclass(frozen=True, kw_only=True)
class RequiredSettings:
    payment_key: str = setting("takes payments", required=True)


def test_a_team_requires_a_setting_except_in_tests(
    production: Path, monkeypatch: pytest.MonkeyPatch
):
    assert "APP_PAYMENT_KEY is missing" in problems(production, RequiredSettings)
    monkeypatch.setenv("APP_ENV", "testing")
    assert problems(production, RequiredSettings) == ""


def test_a_team_can_not_take_a_setting_of_the_base(production: Path):
    assert "declared by app/ and by bulwark/" in problems(production, CollidingSettings)


def test_every_setting_is_in_the_example():
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    listed = re.findall(r"^# (APP_[A-Z_]+)=", example, re.MULTILINE)
    config = [variable(f.name) for f in fields(settings.Config)]
    assert listed == ["APP_ENV", "APP_SECRETS_DIR", *config]


def test_development_needs_its_secrets_too(
    production: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("APP_ENV", "development")
    monkeypatch.delenv("APP_SECRET_KEY")
    assert "run bin/secrets" in problems(production)


def copy_of_bin_secrets(folder: Path) -> Path:
    """Copy the script, and the module that it imports, into a folder's bin/."""
    for name in ("rotations.py", "secrets"):
        shutil.copy(ROOT / "bin" / name, folder / "bin" / name)
    return folder / "bin" / "secrets"


@pytest.mark.parametrize(("file", "refused"), [(".env.production", 0), (".env", 3)])
def test_what_bin_secrets_makes_for_production_is_all_that_production_needs(
    production: Path, monkeypatch: pytest.MonkeyPatch, file: str, refused: int
):
    (production / "bin").mkdir()
    script = copy_of_bin_secrets(production)
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    for name in ("APP_SECRET_KEY", "APP_PASSWORD_PEPPER", "APP_ENCRYPTION_KEYS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("ENV_FILE", str(production / file))
    assert problems(production).count("fix: ") == refused


@pytest.mark.parametrize(
    "written",
    [
        "pass word",
        "'pass word'",
        '"pass word" \r',
        '"',
        "'\"#$`\\'",
        "p=a#s\ufeff",
        "ä",
    ],
)
def test_postgresql_gets_the_password_that_the_service_reads(
    production: Path, written: str
):
    (production / "bin").mkdir()
    script = copy_of_bin_secrets(production)
    file = production / ".env.production"
    file.write_bytes(f"\ufeffAPP_DATABASE_PASSWORD={written}\n".encode())
    file.chmod(0o600)
    command = [sys.executable, str(script), "database"]
    subprocess.run(command, check=True, capture_output=True)
    given = (production / ".env.database").read_bytes().decode()
    assert given == settings.load(production)[0].database_password
    assert given in written


def test_a_server_that_must_not_start_ends_at_once_without_a_traceback():
    environ = {k: v for k, v in os.environ.items() if not k.startswith("APP_")}
    python = [sys.executable, "-X", "importtime"]
    server = subprocess.run(
        [*python, "-m", "gunicorn", "--bind", "127.0.0.1:0", "wsgi:app"],
        cwd=ROOT,
        env=environ
        | {"APP_ENV": "production", "APP_COLOUR": "red", "ENV_FILE": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert server.returncode != 0
    assert "APP_COLOUR in the environment is not a setting" in server.stderr
    assert "Traceback" not in server.stderr
    imported = re.findall(r"^import time:.*\| +(\S+)$", server.stderr, re.MULTILINE)
    assert "bulwark.settings" in imported
    # Only what runs needs most of the base, and the packages that it uses.
    assert not {"bulwark.admin", "bulwark.identity.setup", "alembic"} & {*imported}
