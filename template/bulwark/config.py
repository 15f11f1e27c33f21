"""What the settings are, in each environment."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from flask import Flask, current_app

from bulwark import crypto, hosts, safety, urls
from bulwark.environment import (
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

MADE = "bin/secrets makes it"


class ConfigurationError(Exception):
    """The service must not start; `problems` lists every reason at once."""

    def __init__(self, environment: str, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(
            f"{len(self.problems)} {noun} in the {environment} settings,"
            " so nothing was started:\n" + "\n".join(map(str, self.problems))
        )


def _keys(text: str) -> dict[str, bytes]:
    try:
        return crypto.parse_keys(text)
    except ValueError as error:
        raise UnusableError(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting of the base, with its type; files give the first ones."""

    environment: ClassVar[str]
    default_env_file: ClassVar[str]

    name: str = setting(
        "the service's name, on pages and in mails",
        default="Bulwark",
        cast=hosts.service_name,
    )
    slug: str = setting("the service's name for machines", default="service")
    domain: str = setting(
        "the host name that people type", default="localhost", cast=hosts.host_name
    )
    admin_email: str = setting(
        "the first administrator, and where reports of faults go",
        default="admin@example.com",
        cast=hosts.email_address,
    )
    database: str = setting(
        "the kind of database when APP_DATABASE_URL is not set",
        default="sqlite",
        cast=one_of("sqlite", "postgresql"),
    )
    version: str = setting("which version of the service logs and metrics name")
    template: str = setting("which release of the template they name")

    secret_key: str = setting(
        "signs sessions, forms and links", required=True, secret=True, mend=MADE
    )
    secret_key_fallbacks: tuple[str, ...] = setting(
        "older signing keys, still accepted while a new one takes over",
        default=(),
        cast=words,
        secret=True,
    )
    password_pepper: str = setting(
        "goes into every password hash; without it nobody can sign in",
        required=True,
        secret=True,
        mend=MADE,
    )
    encryption_keys: dict[str, bytes] = setting(
        "encrypts stored data as id:key, newest first, comma between",
        default=None,
        cast=_keys,
        required=True,
        secret=True,
        mend=MADE,
    )

    base_url: str = setting(
        "the address in links that are made outside a request", cast=hosts.base_url
    )
    allowed_hosts: tuple[str, ...] = setting(
        "the host names this service answers to; a link in a mail is built from it",
        default=(),
        cast=hosts.host_names,
        required=True,
    )
    proxy_hops: int = setting(
        "how many proxies of your own stand in front, each adding one header",
        default=0,
        cast=whole_number(0, 5),
    )

    database_url: str = setting(
        "where the data is", cast=urls.database, required=True, secret=True
    )
    database_password: str = setting(
        "goes into APP_DATABASE_URL when that has none", secret=True
    )
    redis_url: str = setting(
        "where Redis is, which counts requests for their limits; without it each"
        " process counts those that it answers",
        cast=urls.redis,
        secret=True,
    )
    mail_url: str = setting(
        "the mail server: smtp://user:password@host:587 or smtps://…:465",
        cast=urls.mail,
        required=True,
        secret=True,
    )
    mail_sender: str = setting(
        "the address that mails come from", cast=hosts.email_address
    )

    password_min_length: int = setting(
        "least characters of a password: 15 while it is the only factor (NIST SP"
        " 800-63B-4, 3.1.1.2), never under 8 (OWASP ASVS 6.2.1)",
        default=15,
        cast=whole_number(8, 64),
    )
    breach_service: str = setting(
        "the service that is asked whether a new password was leaked, such as"
        " https://api.pwnedpasswords.com/range; it gets five digits of the SHA-1 hash",
        cast=hosts.service_url,
    )
    session_idle_minutes: int = setting(
        "minutes after which an unused session ends (OWASP ASVS 5.0, 7.3.1)",
        default=60,
        cast=whole_number(5, 1440),
    )
    session_hours: int = setting(
        "hours after which each session ends, used or not (OWASP ASVS 5.0, 7.3.2)",
        default=24,
        cast=whole_number(1, 720),
    )
    require_second_factor: bool = setting(
        "whether everybody needs a second factor (OWASP ASVS 5.0, 6.3.3); without it"
        " those need one whose role requires it, as the administrators' does",
        default=False,
        cast=yes_or_no,
    )
    email_codes: bool = setting(
        "whether a code by mail may be a second factor; it is the weakest one",
        default=False,
        cast=yes_or_no,
    )
    audit_anchors: str = setting(
        "the file that remembers the end of the audit trail, apart from the database"
    )
    audit_days: int = setting(
        "days that rows of the audit trail are kept; 0 for ever",
        default=0,
        cast=whole_number(0, 36500),
    )
    metrics_folder: str = setting("where the processes of this service count")
    metrics_bind: str = setting(
        "where `flask metrics` listens, for Prometheus alone; no proxy may serve it",
        default="127.0.0.1:9464",
        cast=hosts.host_and_port,
    )
    log_level: str = setting(
        "how much is logged",
        default="INFO",
        cast=one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    )

    @classmethod
    def defaults(cls, root: Path, service: dict[str, Any]) -> dict[str, Any]:
        """Return what this environment takes when nothing is set."""
        return service

    def unsafe(self) -> Iterator[Problem]:
        """Yield what this environment refuses to start with."""
        yield from ()

    def cookie(self, name: str) -> str:
        """Return the full name; with `__Host-` no other host can set the cookie."""
        return f"__Host-{name}"

    @property
    def sender(self) -> tuple[str, str]:
        """The name and address that mails come from."""
        return self.name, self.mail_sender or f"no-reply@{self.domain}"


@dataclass(frozen=True, kw_only=True)
class Development(Config):
    """One machine, nothing to install: SQLite, and mail shown at /dev/mailbox."""

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
        """Tell services on localhost apart: a browser sends cookies to every port."""
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
    """Starts only when it is safe."""

    environment = "production"
    default_env_file = ".env.production"

    @classmethod
    def defaults(cls, root: Path, service: dict[str, Any]) -> dict[str, Any]:
        """Serve the service's domain behind one proxy, with a database beside it."""
        domain = service.get("domain", "")
        slug = service.get("slug", "service")
        databases = {
            "sqlite": urls.of_path("sqlite:///", root / "instance" / "production.db"),
            # libpq takes an empty host as its own unix socket.
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
        root: the folder that holds `service.toml`, `.env` and `instance/`.
        own: the app's own settings, each declared with `environment.setting`.

    Raises:
        ConfigurationError: there is a reason not to start; it lists all of them.
    """
    chosen = os.environ.get("APP_ENV", "")
    if chosen not in ENVIRONMENTS:
        raise ConfigurationError(
            "unknown",
            [
                Problem(
                    f"APP_ENV is {chosen!r}" if chosen else "APP_ENV is not set",
                    "it decides which settings are read and how strict they are",
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
    """Return which version this is, and which release of the template made it."""
    for name, file, line in (
        ("version", "pyproject.toml", r'^version = "(.+)"$'),
        ("template", ".copier-answers.yml", r"^_commit: *'?(.+?)'?$"),
    ):
        path = root / file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = re.search(line, text, re.MULTILINE)
        yield name, found[1] if found else "unknown"


def _secrets_dir() -> Path:
    """Return the folder that Docker or systemd mounts secrets in, or one named."""
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
            "a misspelt setting is a control that is silently off",
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

    Returns those of the base and, if there are any, your own.
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
