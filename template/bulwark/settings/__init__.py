"""The settings of the base, and their defaults in each environment."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from flask import Flask, current_app

from bulwark import crypto
from bulwark.settings import hosts, safety, urls
from bulwark.settings.sources import (
    Problem,
    Sources,
    UnusableError,
    one_of,
    setting,
    variable,
    whole_number,
    words,
    yes_or_no,
)

MADE = "run bin/secrets"


class ConfigurationError(Exception):
    """The service must not start; `problems` lists every reason."""

    def __init__(self, environment: str, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(
            f"{len(self.problems)} {noun} in the {environment} settings,"
            " so the service did not start:\n" + "\n".join(map(str, self.problems))
        )


def _keys(text: str) -> dict[str, bytes]:
    try:
        return crypto.parse_keys(text)
    except ValueError as error:
        raise UnusableError(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting of the base, with its type. Files set the first ones by default."""

    environment: ClassVar[str]
    default_env_file: ClassVar[str]

    name: str = setting(
        "the service's name, on pages and in emails",
        default="Bulwark",
        cast=hosts.service_name,
    )
    slug: str = setting("the service's short name, for programs", default="service")
    domain: str = setting(
        "the service's host name", default="localhost", cast=hosts.host_name
    )
    admin_email: str = setting(
        "the first administrator, who also receives reports of failures",
        default="admin@example.com",
        cast=hosts.email_address,
    )
    database: str = setting(
        "the kind of database when APP_DATABASE_URL is not set",
        default="sqlite",
        cast=one_of("sqlite", "postgresql"),
    )
    version: str = setting("the service's version, for logs and metrics")
    template: str = setting("the template's release, for logs and metrics")

    secret_key: str = setting(
        "signs sessions, forms and links", required=True, secret=True, mend=MADE
    )
    secret_key_fallbacks: tuple[str, ...] = setting(
        "older signing keys, accepted during the change to a new one",
        default=(),
        cast=words,
        secret=True,
    )
    password_pepper: str = setting(
        "part of every password hash; without it no one can sign in",
        required=True,
        secret=True,
        mend=MADE,
    )
    encryption_keys: dict[str, bytes] = setting(
        "keys that encrypt stored data: id:key, newest first, separated by commas",
        default=None,
        cast=_keys,
        required=True,
        secret=True,
        mend=MADE,
    )

    base_url: str = setting(
        "the base URL of links that are created outside a request", cast=hosts.base_url
    )
    allowed_hosts: tuple[str, ...] = setting(
        "the host names this service responds to; links in emails are built from them",
        default=(),
        cast=hosts.host_names,
        required=True,
    )
    proxy_hops: int = setting(
        "the number of your own proxies in front, each of which adds one header",
        default=0,
        cast=whole_number(0, 5),
    )

    database_url: str = setting(
        "the URL of the database", cast=urls.database, required=True, secret=True
    )
    database_password: str = setting(
        "the password for APP_DATABASE_URL if that has none", secret=True
    )
    redis_url: str = setting(
        "the URL of Redis, which counts requests for rate limits; without it, each"
        " process counts its own requests",
        cast=urls.redis,
        secret=True,
    )
    mail_url: str = setting(
        "the mail server: smtp://user:password@host:587 or smtps://…:465",
        cast=urls.mail,
        required=True,
        secret=True,
    )
    mail_sender: str = setting("the sender address of emails", cast=hosts.email_address)

    password_min_length: int = setting(
        "the minimum length of a password: 15 if it is the only factor (NIST SP"
        " 800-63B-4, 3.1.1.2), never less than 8 (OWASP ASVS 6.2.1)",
        default=15,
        cast=whole_number(8, 64),
    )
    breach_service: str = setting(
        "the service that checks whether a new password was leaked, such as"
        " https://api.pwnedpasswords.com/range; it gets five digits of the SHA-1 hash",
        cast=hosts.service_url,
    )
    session_idle_minutes: int = setting(
        "minutes after which an unused session ends (OWASP ASVS 5.0, 7.3.1)",
        default=60,
        cast=whole_number(5, 1440),
    )
    session_hours: int = setting(
        "hours after which every session ends, even in use (OWASP ASVS 5.0, 7.3.2)",
        default=24,
        cast=whole_number(1, 720),
    )
    require_second_factor: bool = setting(
        "whether every user needs a second factor (OWASP ASVS 5.0, 6.3.3); otherwise"
        " only users whose role requires one, such as administrators",
        default=False,
        cast=yes_or_no,
    )
    email_codes: bool = setting(
        "whether a code sent by email may be a second factor; it is the weakest one",
        default=False,
        cast=yes_or_no,
    )
    audit_anchors: str = setting(
        "the file that records the end of the audit trail, outside the database"
    )
    audit_days: int = setting(
        "days to keep rows of the audit trail; 0 keeps them forever",
        default=0,
        cast=whole_number(0, 36500),
    )
    metrics_folder: str = setting("the folder where processes store their counts")
    metrics_bind: str = setting(
        "where `flask metrics` listens, for Prometheus only; no proxy may expose it",
        default="127.0.0.1:9464",
        cast=hosts.host_and_port,
    )
    log_level: str = setting(
        "the lowest level that is logged",
        default="INFO",
        cast=one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    )

    @classmethod
    def defaults(cls, root: Path, service: dict[str, Any]) -> dict[str, Any]:
        """Return this environment's defaults."""
        return service

    def unsafe(self) -> Iterator[Problem]:
        """Yield the problems that keep this environment from starting."""
        yield from ()

    def cookie(self, name: str) -> str:
        """Return the full name; `__Host-` keeps other hosts from setting the cookie."""
        return f"__Host-{name}"

    @property
    def sender(self) -> tuple[str, str]:
        """The name and address that emails come from."""
        return self.name, self.mail_sender or f"no-reply@{self.domain}"


@dataclass(frozen=True, kw_only=True)
class Development(Config):
    """One machine, nothing to install: SQLite, and emails shown at /dev/mailbox."""

    environment = "development"
    default_env_file = ".env"

    @classmethod
    def defaults(cls, root: Path, service: dict[str, Any]) -> dict[str, Any]:
        """Serve https://localhost from files in `instance/`, on the port of bin/dev."""
        port = os.environ.get("FLASK_RUN_PORT", "8443")
        return service | {
            "base_url": f"https://localhost:{port}",
            "allowed_hosts": ("localhost", "127.0.0.1", "[::1]"),
            "database_url": urls.of_path(
                "sqlite:///", root / "instance" / "development.db"
            ),
            "mail_url": urls.of_path("mailbox:", root / "instance" / "mailbox"),
            "audit_anchors": str(root / "instance" / "audit-anchors"),
            "metrics_folder": str(root / "instance" / "metrics"),
        }

    def cookie(self, name: str) -> str:
        """Add the slug: on localhost, browsers send cookies to every port."""
        return super().cookie(f"{self.slug}-{name}")


@dataclass(frozen=True, kw_only=True)
class Testing(Config):
    """Fixed values, so that tests need no file; APP_DATABASE_URL may be set."""

    environment = "testing"
    default_env_file = ".env.testing"

    @classmethod
    def defaults(cls, root: Path, service: dict[str, Any]) -> dict[str, Any]:
        """Use SQLite in memory and secrets that protect nothing."""
        return service | {
            "secret_key": "testing-" * 8,
            "password_pepper": "testing-" * 8,
            "encryption_keys": {"testing": b"0123456789abcdef" * 2},
            "base_url": "https://localhost",
            "allowed_hosts": ("localhost",),
            "database_url": "sqlite://",
            "mail_url": urls.of_path("mailbox:", root / "instance" / "testing-mailbox"),
            "audit_anchors": str(root / "instance" / "testing-audit-anchors"),
            "metrics_folder": str(root / "instance" / "testing-metrics"),
        }


@dataclass(frozen=True, kw_only=True)
class Production(Config):
    """Starts only with safe settings."""

    environment = "production"
    default_env_file = ".env.production"

    @classmethod
    def defaults(cls, root: Path, service: dict[str, Any]) -> dict[str, Any]:
        """Serve the service's domain behind one proxy, with a local database."""
        domain = service.get("domain", "")
        slug = service.get("slug", "service")
        databases = {
            "sqlite": urls.of_path("sqlite:///", root / "instance" / "production.db"),
            # With an empty host, libpq connects to its Unix socket.
            "postgresql": f"postgresql://{slug}@/{slug}",
        }
        return service | {
            "base_url": f"https://{domain}",
            "allowed_hosts": (domain,) if domain else (),
            "proxy_hops": 1,
            "database_url": databases[service.get("database", "sqlite")],
            "audit_anchors": str(root / "instance" / "audit-anchors"),
            "metrics_folder": str(root / "instance" / "metrics"),
        }

    def unsafe(self) -> Iterator[Problem]:
        """Yield every reason not to start."""
        yield from safety.problems(self)


ENVIRONMENTS: dict[str, type[Config]] = {
    cls.environment: cls for cls in (Development, Production, Testing)
}


def load(root: Path, own: type[Any] | None = None) -> tuple[Config, Any]:
    """Read the settings of the base and, if given, the dataclass `own` of the app.

    Args:
        root: the folder that contains `service.toml`, `.env` and `instance/`.
        own: the app's own settings, each declared with `environment.setting`.

    Raises:
        ConfigurationError: the service must not start; it lists every reason.
    """
    chosen = os.environ.get("APP_ENV", "")
    if chosen not in ENVIRONMENTS:
        raise ConfigurationError(
            "unknown",
            [
                Problem(
                    f"APP_ENV is {chosen!r}" if chosen else "APP_ENV is not set",
                    "it decides which settings are read, and how strict the checks are",
                    f"set it to one of {', '.join(ENVIRONMENTS)};"
                    " bin/dev, bin/test and bin/flask do it for you",
                )
            ],
        )
    cls = ENVIRONMENTS[chosen]
    strict = cls is not Testing
    sources = Sources(_secrets_dir(), _env_file(root, cls))
    config = sources.read(cls, cls.defaults(root, _service(root)), strict=strict)
    settings = sources.read(own, {}, strict=strict) if own else None
    known = {variable(f.name): f for f in fields(cls)}
    added = {variable(f.name) for f in fields(own)} if own else set()
    problems = [
        *sources.problems,
        *_unknown(sources, known.keys() | added | {"APP_ENV", "APP_SECRETS_DIR"}),
        *(_taken(name) for name in sorted(added & known.keys())),
        *config.unsafe(),
    ]
    if problems:
        raise ConfigurationError(chosen, problems)
    return config, settings


def _service(root: Path) -> dict[str, Any]:
    path = root / "service.toml"
    answers = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    answers.pop("edge", None)  # deploy/ reads it
    return answers | dict(_versions(root))


def _versions(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the service's version, and the template release that generated it."""
    for name, file, line in (
        ("version", "pyproject.toml", r'^version = "(.+)"$'),
        ("template", ".copier-answers.yml", r"^_commit: *'?(.+?)'?$"),
    ):
        path = root / file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = re.search(line, text, re.MULTILINE)
        yield name, found[1] if found else "unknown"


def _secrets_dir() -> Path:
    """Return the secrets folder: one that is set, systemd's, or Docker's."""
    named = os.environ.get("APP_SECRETS_DIR") or os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(named or "/run/secrets")


def _env_file(root: Path, cls: type[Config]) -> Path:
    return Path(os.environ.get("ENV_FILE") or root / cls.default_env_file)


def _unknown(sources: Sources, known: Iterable[str]) -> Iterator[Problem]:
    for name, place in dict(sources.names()).items():
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        yield Problem(
            f"{name} in {place} is not a setting",
            "a misspelled setting would silently have no effect",
            f"did you mean {near[0]}?" if near else "remove it, or declare it in app/",
        )


def _taken(name: str) -> Problem:
    return Problem(
        f"{name} is declared by app/ and by bulwark/",
        "one of the two would read the other's value",
        "rename the field in app/settings.py",
    )


def init_app(app: Flask, own: type[Any] | None) -> tuple[Config, Any]:
    """Load the settings into `app.config`: each field under its name in capitals.

    Return the base's settings and, if there are any, the app's.
    """
    config, settings = load(Path(app.root_path).parent, own)
    for source in filter(None, (config, settings)):
        for declared in fields(source):
            app.config[declared.name.upper()] = getattr(source, declared.name)
    app.config["SECRET_KEY_FALLBACKS"] = list(config.secret_key_fallbacks)
    app.testing = config.environment == "testing"
    app.extensions["bulwark"] = config
    return config, settings


def current() -> Config:
    """Return the settings of the running app."""
    config: Config = current_app.extensions["bulwark"]
    return config
