"""The defaults of the settings in development, tests and production."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulwark.settings import urls
from bulwark.settings.base import Config


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
            "uploads_folder": str(root / "instance" / "uploads"),
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
            "uploads_folder": str(root / "instance" / "testing-uploads"),
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
            "uploads_folder": str(root / "instance" / "uploads"),
        }


ENVIRONMENTS: dict[str, type[Config]] = {
    cls.environment: cls for cls in (Development, Production, Testing)
}
