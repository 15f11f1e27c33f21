"""The settings of the base, each with its type and meaning."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from decouple import Choices

from bulwark import crypto
from bulwark.settings import hosts, urls
from bulwark.settings.fields import (
    UnusableError,
    absolute_path,
    setting,
    whole_number,
    words,
    yes_or_no,
)

MADE = "run bin/secrets"


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
        cast=Choices(["sqlite", "postgresql"]),
    )
    version: str = setting("the service's version, for logs and metrics")
    template: str = setting("the template's release, for logs and metrics")

    secret_key: str = setting(
        "signs sessions, forms and links", required=True, secret=True, fix=MADE
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
        fix=MADE,
    )
    password_pepper_fallbacks: tuple[str, ...] = setting(
        "former peppers, needed until all users with older hashes have signed in",
        default=(),
        cast=words,
        secret=True,
    )
    encryption_keys: dict[str, bytes] = setting(
        "keys that encrypt stored data: id:key, newest first, separated by commas",
        default=None,
        cast=_keys,
        required=True,
        secret=True,
        fix=MADE,
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
    cors_origins: tuple[str, ...] = setting(
        "the origins of other sites whose pages may call the API, with access tokens",
        default=(),
        cast=hosts.origins,
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
    outbound_proxy: str = setting(
        "the HTTP proxy that emails are sent through, such as http://egress:3128;"
        " it must allow CONNECT to the mail server",
        cast=hosts.http_proxy,
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
        "hours after which every session ends, even in use (OWASP ASVS 5.0, 7.3.2);"
        " more than 720 need a declaration, see docs/promises.md",
        default=24,
        cast=whole_number(1, 8760),
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
    uploads_folder: str = setting(
        "the folder of uploaded files, which no proxy may serve; it is also where files"
        " wait while they are received"
    )
    uploads_url: str = setting(
        "the bucket of uploaded files, in S3-compatible storage:"
        " https://key:secret@host/bucket?region=…; without it, they are in"
        " APP_UPLOADS_FOLDER",
        cast=urls.uploads,
        secret=True,
    )
    virus_scanner: str = setting(
        "the path of clamd's socket, such as /run/clamav/clamd.ctl: uploaded files are"
        " scanned, and refused while it does not answer",
        cast=absolute_path,
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
        cast=Choices(["DEBUG", "INFO", "WARNING", "ERROR"]),
    )

    @classmethod
    def defaults(cls, root: Path, service: dict[str, Any]) -> dict[str, Any]:
        """Return this environment's defaults."""
        return service

    def cookie(self, name: str) -> str:
        """Return the full name; `__Host-` keeps other hosts from setting the cookie."""
        return f"__Host-{name}"

    @property
    def signing_keys(self) -> list[str]:
        """The keys of signatures, as itsdangerous expects them: the last one signs."""
        return [*reversed(self.secret_key_fallbacks), self.secret_key]

    @property
    def sender(self) -> tuple[str, str]:
        """The name and address that emails come from."""
        return self.name, self.mail_sender or f"no-reply@{self.domain}"
