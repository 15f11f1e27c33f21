"""URLs with passwords: each works as written or stops the start, and none leaks."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from redis.connection import parse_url
from sqlalchemy import create_engine, make_url

from bulwark import settings
from bulwark.database.engine import database_url
from bulwark.settings import urls
from bulwark.settings.fields import UnusableError, setting
from tests.bulwark.conftest import GOOD, problems
from tests.conftest import ROOT

# What generators of passwords and people write, and what is sent to the server.
PASSWORDS = {
    "hunter2secret": "hunter2secret",
    "hunter2secret#ss": "hunter2secret#ss",
    "hunter2/secret+a=": "hunter2/secret+a=",
    "hunter2?secret": "hunter2?secret",
    "hunter2[secret]": "hunter2[secret]",
    "hunter2:secret": "hunter2:secret",
    "100%hunter2": "100%hunter2",
    "hunter2 secret": "hunter2 secret",
    "hunter2Ⓤ℀secret": "hunter2Ⓤ℀secret",
    "p%C3%A4ss%23hunter2": "päss#hunter2",
    "hunter2@secret": "hunter2@secret",
    "a'\"\\`$hunter2": "a'\"\\`$hunter2",
}
URLS = {
    "APP_MAIL_URL": "smtp://user:{}@mail.shop.test:587",
    "APP_REDIS_URL": "rediss://:{}@cache.shop.test:6379/1",
    "APP_DATABASE_URL": "postgresql://user:{}@db.shop.test:5432/shop?sslmode=verify-full",
    "APP_UPLOADS_URL": "https://user:{}@files.shop.test:9000/shop/a/b?region=eu-1",
}
BROKEN = {
    # A piece of the password would pass for the host, the port or an option.
    "APP_MAIL_URL": [
        "smtp://user:hunter2#secret",
        "smtp://user:hunter2/secret",
        "smtp://user:hunter2",
        "smtp://user:hunter2@mail.shop.test:hunter2",
        "smtp://user:hunter2@mail.shop.test:587 # hunter2",
        "smtp://user:hunter2@mail.shop.test:587 # ask hunter2@shop.test",
        "smtp://user:hunter2@mail.shop.test:587#hunter2",
        "smtp://user:hunter2@mail.shop.test:99999",
        "smtp://user:hunter2%E4@mail.shop.test",
        "smtp://user:hunter2%0D%0A@mail.shop.test",
        "smtp://user:hunter2\t@mail.shop.test",
        "smtp://user:hunter2\udce4@mail.shop.test",
        "smtp://hunter2@mail.shop.test",
        "smtp://user:hunter2@mail.shop.test:465",
        "smtp://user:hunter2@mäil.shop.test",
        "smtp://user:hunter2@mail.shop.test/hunter2",
        "smtp://user:hunter2@mail..shop.test:587",
        f"smtp://user:hunter2@{'m' * 64}.shop.test:587",
        "smtp://user:hunter2@mail.shop.test,mail2.shop.test",
        "user:hunter2@mail.shop.test",
        "hunter2://mail.shop.test",
    ],
    "APP_REDIS_URL": [
        "rediss://:hunter2#secret",
        "rediss://:1234/hunter2@cache.shop.test:6379",
        "rediss://:a@hunter2/secret@cache.shop.test:6379",
        "rediss://:hunter2@cache.shop.test:6379/0#hunter2",
        "rediss://:hunter2@cache.shop.test:6379 # hunter2",
        "rediss://:hunter2@cache..shop.test:6379",
        "http://:hunter2@cache.shop.test",
    ],
    "APP_DATABASE_URL": [
        "postgresql://user:hunter2#secret",
        "postgresql://user:hunter2@db.shop.test:hunter2/shop",
        "postgresql://user:a@hunter2/x@db.shop.test/shop?sslmode=verify-full",
        "postgresql://user:hunter2@db.shop.test/shop#hunter2?sslmode=verify-full",
        "postgresql://user:hunter2@db.shop.test/shop?sslmode=verify-full # hunter2",
        "postgresql://user:hunter2@localhost/shop?sslmodee=hunter2",
        "mysql://user:hunter2@db.shop.test/shop",
        "user:hunter2@db.shop.test",
        "sqlite:///hunter2?x/shop.db",
    ],
    "APP_UPLOADS_URL": [
        "https://user:hunter2#secret",
        "https://user:1234/hunter2@files.shop.test/shop?region=eu-1",
        "https://user:hunter2@files.shop.test/shop",
        "https://user:hunter2@files.shop.test/shop?region=",
        "https://user:hunter2@files.shop.test/?region=eu-1",
        "https://user:hunter2@files.shop.test/shop?region=eu-1&x=hunter2",
        "https://user:hunter2@files.shop.test/shop?region=eu-1#hunter2",
        "https://user:hunter2@files.shop.test/shop/../hunter2?region=eu-1",
        "https://user:hunter2@files.shop.test/Hunter2/hunter2?region=eu-1",
        "https://user:hunter2@/shop?region=eu-1",
        "https://user:hunter2@a.test,b.test/shop?region=eu-1",
        "https://hunter2@files.shop.test/shop?region=eu-1",
        "https://:hunter2@files.shop.test/shop?region=eu-1",
        "https://files.shop.test/shop?region=eu-1",
        "s3://user:hunter2@shop",
    ],
}


@pytest.mark.parametrize(("written", "meant"), PASSWORDS.items())
@pytest.mark.parametrize("name", URLS)
def test_a_password_with_special_characters_works_in_a_url(
    production: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    written: str,
    meant: str,
):
    monkeypatch.setenv(name, URLS[name].format(written))
    assert problems(production) == ""
    loaded, _ = settings.load(production)
    read = urlsplit(getattr(loaded, name.removeprefix("APP_").lower()))
    assert unquote(read.password or "") == meant
    # What connects has each part as it was meant.
    if name == "APP_REDIS_URL":
        kwargs = parse_url(loaded.redis_url)
        assert (kwargs["password"], kwargs["host"]) == (meant, "cache.shop.test")
        assert (kwargs["port"], kwargs["db"]) == (6379, 1)
    elif name == "APP_DATABASE_URL":
        url = database_url(loaded)
        _, kwargs = create_engine(url).dialect.create_connect_args(url)
        assert (kwargs["password"], kwargs["host"]) == (meant, "db.shop.test")
        assert (kwargs["port"], kwargs["dbname"]) == (5432, "shop")
    elif name == "APP_UPLOADS_URL":
        bucket = urls.bucket(loaded.uploads_url)
        assert (bucket.access_key, bucket.secret_key) == ("user", meant)
        assert (bucket.name, bucket.prefix, bucket.region) == ("shop", "a/b/", "eu-1")
        assert bucket.endpoint == "https://files.shop.test:9000"
    else:
        server = urls.mail_server(loaded.mail_url)
        assert (server.user, server.password) == ("user", meant)
        assert (server.host, server.port) == ("mail.shop.test", 587)


@pytest.mark.parametrize(
    ("name", "url"), [(name, url) for name, given in BROKEN.items() for url in given]
)
def test_an_ambiguous_or_invalid_url_stops_the_start_and_shows_no_secret(
    production: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    url: str,
):
    monkeypatch.setenv(name, url)
    message = problems(production)
    assert message.startswith("1 problem ")
    assert f"{name} can't be used: " in message
    assert "hunter2" not in message
    assert "secret" not in message.partition("why:")[0]


@pytest.mark.parametrize(
    ("name", "url", "advice"),
    [
        ("APP_MAIL_URL", "smtp://user:pass#word", "%23"),
        ("APP_MAIL_URL", "smtp://u:p@h.test:587 # ours", "its own line"),
        ("APP_MAIL_URL", "smtp://u:p@h.test:465", "smtps://"),
        ("APP_MAIL_URL", "smtp://u:p@müller.test", "xn--"),
        ("APP_MAIL_URL", "smtp://u:p%E4@h.test", "UTF-8"),
        ("APP_DATABASE_URL", "postgresql://u:1/2@db.test/shop", "%2F"),
        ("APP_UPLOADS_URL", "https://u:p@files.test/shop", "?region="),
    ],
)
def test_a_problem_shows_what_to_write_instead(
    production: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    url: str,
    advice: str,
):
    monkeypatch.setenv(name, url)
    assert advice in problems(production)


def test_what_others_call_a_postgresql_url_is_one(
    production: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    for scheme in ("postgres", "postgresql", "postgresql+psycopg2", "POSTGRES"):
        monkeypatch.setenv("APP_DATABASE_URL", f"{scheme}://u:p@localhost/shop")
        loaded, _ = settings.load(production)
        assert database_url(loaded) == make_url(
            "postgresql+psycopg://u:p@localhost/shop"
        )


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("APP_MAIL_URL", "smtp://me@shop.test:hunter2@mail.shop.test"),
        ("APP_MAIL_URL", "smtps://user:pass@[2001:db8::1]:465"),
        ("APP_MAIL_URL", "smtp://relay.shop.test/"),
        ("APP_REDIS_URL", "unix:///run/redis/redis.sock"),
        ("APP_REDIS_URL", "unix://user:pa#ss@/run/redis/redis.sock?db=1"),
        ("APP_REDIS_URL", "redis://localhost"),
        ("APP_DATABASE_URL", "postgresql://shop@/shop"),
        ("APP_DATABASE_URL", "postgresql:///shop?host=/run/postgresql"),
        ("APP_DATABASE_URL", "postgresql://u:p@[::1]:5432/shop"),
        ("APP_DATABASE_URL", "postgresql://u:p@localhost/shop?options=-c x=y"),
        ("APP_DATABASE_URL", "sqlite:////srv/what#100%25/x.db"),
        ("APP_DATABASE_URL", "sqlite://"),
        ("APP_UPLOADS_URL", "https://u:p@[2001:db8::1]:9000/shop/?region=eu-1"),
        ("APP_UPLOADS_URL", "http://u:p@localhost:9000/shop?region=us-east-1"),
    ],
)
def test_ordinary_urls_stay_as_they_are(
    production: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    url: str,
):
    monkeypatch.setenv(name, url)
    assert problems(production) == ""


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite://", None),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite:///shop.db", "shop.db"),
        ("sqlite:////srv/a b#1/x.db", "/srv/a b#1/x.db"),
        ("sqlite:////srv/100%/x.db", "/srv/100%/x.db"),
        ("sqlite:////srv/what%3F%2541/x.db?timeout=9", "/srv/what?%41/x.db"),
    ],
)
def test_a_file_of_sqlite_is_at_the_path_in_the_url(
    production: Path, monkeypatch: pytest.MonkeyPatch, url: str, file: str | None
):
    monkeypatch.setenv("APP_DATABASE_URL", url)
    loaded, _ = settings.load(production)
    assert database_url(loaded).database == file
    assert dict(database_url(loaded).query) == ({"timeout": "9"} if "?" in url else {})


def test_the_message_of_a_foreign_cast_shows_no_secret(
    production: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    @dataclass(frozen=True, kw_only=True)
    class Own:
        card: int = setting("pays", default=0, cast=int, secret=True)

    monkeypatch.setenv("APP_CARD", "hunter2secret")
    message = problems(production, Own)
    assert "APP_CARD can't be used" in message
    assert "hunter2" not in message


def test_a_line_of_a_secret_that_was_broken_in_two_is_not_shown(production: Path):
    file = production / ".env.production"
    file.write_text("APP_PAYMENT=first\nhunter2Secret=\n")
    file.chmod(0o600)
    message = problems(production)
    assert "line 2, is not NAME=value" in message
    assert "hunter2" not in message


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What a process of production gets."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("APP_", "FLASK_"))}
    return (
        ours
        | GOOD
        | {
            "APP_ENV": "production",
            "APP_SECRETS_DIR": str(tmp_path / "none"),
            "ENV_FILE": str(tmp_path / "none.env"),
            "APP_DATABASE_URL": f"sqlite:///{tmp_path}/shop.db",
            "APP_AUDIT_ANCHORS": str(tmp_path / "anchors"),
            "APP_METRICS_FOLDER": str(tmp_path / "metrics"),
            "APP_METRICS_BIND": "127.0.0.1:1",
        }
    )


@pytest.mark.parametrize(
    "command",
    [
        ["gunicorn", "--bind", "127.0.0.1:0", "wsgi:app"],
        ["flask", "--app", "wsgi", "worker"],
        ["flask", "--app", "wsgi", "metrics"],
    ],
    ids=["web", "worker", "metrics"],
)
def test_no_process_shows_a_piece_of_a_url_that_it_refuses(
    environ: dict[str, str], command: list[str]
):
    broken = {
        "APP_MAIL_URL": "smtp://user:hunter2#secret",
        "APP_REDIS_URL": "rediss://:a@hunter2/secret@cache.shop.test:6379",
        "APP_DATABASE_URL": "postgresql://user:1/hunter2@db.shop.test/shop",
    }
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environ | broken,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    message = ended.stdout + ended.stderr
    assert ended.returncode != 0
    for name in broken:
        assert name in message
    assert not re.search("hunter2|Traceback", message)


def test_a_cast_of_urls_never_quotes_what_it_refuses():
    for read, given in (
        (urls.mail, BROKEN["APP_MAIL_URL"]),
        (urls.redis, BROKEN["APP_REDIS_URL"]),
        (urls.database, BROKEN["APP_DATABASE_URL"]),
    ):
        for url in given:
            with pytest.raises(UnusableError) as refused:
                read(url)
            assert "hunter2" not in str(refused.value)
            assert refused.value.__suppress_context__ or not refused.value.__context__
