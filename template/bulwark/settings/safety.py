"""What production rejects: weak secrets, any host, connections without TLS."""

import os
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from bulwark.network import is_local
from bulwark.settings.base import Config
from bulwark.settings.fields import Problem, variable

EXAMPLE_SECRETS = ("change", "example", "secret", "password", "replace", "your-")
UNVERIFIED = "passwords and data would be sent in plain text, or to an impostor"
DEVELOPMENT_SECRET = "development-"  # noqa: S105  the prefix that bin/secrets adds


def problems(config: Config) -> Iterator[Problem]:
    """Yield every reason not to start in production."""
    yield from _weak_secrets(config)
    yield from _bad_hosts(config.allowed_hosts)
    yield from _unverified_database(config)
    yield from _unverified_redis(config)
    yield from _unverified_bucket(config)
    yield from _no_mail_server(config)
    if os.environ.get("FLASK_DEBUG", "0").lower() not in ("", "0", "false", "no"):
        yield Problem(
            "FLASK_DEBUG is on",
            "the debugger lets clients run code",
            "unset FLASK_DEBUG",
        )


def _weak_secrets(config: Config) -> Iterator[Problem]:
    why = "anyone who guesses it can forge sessions and links, or decrypt data"
    single = {
        variable("secret_key"): config.secret_key,
        variable("password_pepper"): config.password_pepper,
    }
    fallbacks = ("secret_key_fallbacks", "password_pepper_fallbacks")
    rotated = (
        (variable(name), value) for name in fallbacks for value in getattr(config, name)
    )
    for name, value in (*single.items(), *rotated):
        if not value:
            continue
        if value.startswith(DEVELOPMENT_SECRET):
            fault = "is a development secret"
        elif any(word in value.lower() for word in EXAMPLE_SECRETS):
            fault = "is an example value"
        elif len(value) < 43 or len(set(value)) < 16:  # noqa: PLR2004
            # 43 characters of base64 are the 256 bits of ASVS 11.2.3 and above.
            fault = "is short or repetitive: use at least 43 random characters"
        else:
            continue
        yield Problem(f"{name} {fault}", why, f"remove {name}, then run bin/secrets")
    for key_id, key in (config.encryption_keys or {}).items():
        if key_id == "development" or len(set(key)) < 8:  # noqa: PLR2004
            yield Problem(
                f"{variable('encryption_keys')} has a development or repetitive key",
                why,
                "add a key from bin/secrets in front of it, then re-encrypt",
            )


def _bad_hosts(hosts: tuple[str, ...]) -> Iterator[Problem]:
    for host in hosts:
        if host.startswith("."):
            fault = f"{host!r}, which is not one host name"
        elif host.endswith(("example.com", "example.org", "example.net", ".example")):
            fault = f"the example domain {host!r}"
        else:
            continue
        yield Problem(
            f"{variable('allowed_hosts')} contains {fault}",
            "links in emails lead to the host that a request names",
            "set APP_ALLOWED_HOSTS, or `domain` in service.toml, to your host name",
        )


def _unverified_database(config: Config) -> Iterator[Problem]:
    url = urlsplit(config.database_url)
    options = parse_qs(url.query)
    others = [*options.get("host", ()), *options.get("hostaddr", ())]
    hosts = [url.hostname or "", *",".join(others).split(",")]
    if (
        url.scheme.startswith("postgresql")
        and not all(map(is_local, hosts))
        and options.get("sslmode") != ["verify-full"]
    ):
        yield Problem(
            "APP_DATABASE_URL connects to another host without verified TLS",
            UNVERIFIED,
            "add ?sslmode=verify-full&sslrootcert=system (or the path of its CA)",
        )


def _unverified_redis(config: Config) -> Iterator[Problem]:
    url = urlsplit(config.redis_url)
    if not url.hostname or is_local(url.hostname):
        return
    checks = parse_qs(url.query).get("ssl_cert_reqs", ["required"])
    if url.scheme != "rediss" or checks != ["required"]:
        yield Problem(
            "APP_REDIS_URL connects to another host without verified TLS",
            UNVERIFIED,
            "write rediss:// and leave ssl_cert_reqs at required",
        )


def _unverified_bucket(config: Config) -> Iterator[Problem]:
    url = urlsplit(config.uploads_url)
    if url.scheme == "http" and not is_local(url.hostname or ""):
        yield Problem(
            "APP_UPLOADS_URL connects to another host without TLS",
            UNVERIFIED,
            "write https://",
        )


def _no_mail_server(config: Config) -> Iterator[Problem]:
    if config.mail_url and urlsplit(config.mail_url).scheme not in ("smtp", "smtps"):
        yield Problem(
            "APP_MAIL_URL can't send emails",
            "users could neither confirm an account nor reset a password",
            "write smtp://user:password@host:587 (STARTTLS) or smtps://…:465",
        )
