"""What benchmarks share: a service with production settings, tables and JSON."""

import argparse
import json
import os
import secrets
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IN_SERVICE = Path(__file__).parent / "in_service"
DOMAIN = "benchmark.bulwark-tests.net"


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--service",
        type=Path,
        default=ROOT / "template",
        help="the folder of a service that is set up; the default is template/",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


@dataclass(frozen=True)
class Service:
    """A service with production settings; its files stay as they are.

    Args:
        root: the service's folder, with its `.venv`.
        folder: where its processes store their counts and anchors.
        database_url: its database.
    """

    root: Path
    folder: Path
    database_url: str

    def __post_init__(self) -> None:
        if not self.python.exists():
            sys.exit(f"{self.root} is not set up: run {self.root}/bin/setup")
        (self.folder / "settings").touch(mode=0o600)
        keys = self.folder / "keys.json"
        if not keys.exists():
            made = {name: secrets.token_urlsafe(48) for name in ("key", "pepper")}
            made["encryption"] = b64encode(secrets.token_bytes(32)).decode()
            keys.write_text(json.dumps(made))

    @property
    def python(self) -> Path:
        return self.root.resolve() / ".venv/bin/python"

    @property
    def environment(self) -> dict[str, str]:
        """The settings of production, and the modules of `in_service`."""
        keys = json.loads((self.folder / "keys.json").read_text())
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{IN_SERVICE}{os.pathsep}{self.root.resolve()}",
            "APP_ENV": "production",
            "ENV_FILE": str(self.folder / "settings"),
            "APP_SECRETS_DIR": str(self.folder / "no secrets"),
            "APP_NAME": "Benchmark",
            "APP_DOMAIN": DOMAIN,
            "APP_ALLOWED_HOSTS": DOMAIN,
            "APP_BASE_URL": f"https://{DOMAIN}",
            "APP_ADMIN_EMAIL": f"admin@{DOMAIN}",
            "APP_MAIL_URL": "smtp://127.0.0.1:2525",
            "APP_SECRET_KEY": keys["key"],
            "APP_PASSWORD_PEPPER": keys["pepper"],
            "APP_ENCRYPTION_KEYS": f"2026:{keys['encryption']}",
            "APP_DATABASE_URL": self.database_url,
            "APP_METRICS_FOLDER": str(self.folder / "metrics"),
            "APP_AUDIT_ANCHORS": str(self.folder / "anchors"),
        }

    def command(self, script: str, *words: object) -> list[str]:
        """Return the command that runs a script of `in_service` in the service."""
        return [str(self.python), str(IN_SERVICE / script), *map(str, words)]

    def run(self, script: str, *words: object, **environment: str) -> dict[str, Any]:
        """Run a script of `in_service`; return the JSON object on its last line."""
        return self.run_command(self.command(script, *words), **environment)

    def run_command(self, command: Sequence[str], **environment: str) -> dict[str, Any]:
        """Run a command in the service; return the JSON object on its last line."""
        ran = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            sys.exit(f"{' '.join(command)}\n{ran.stdout[-2000:]}\n{ran.stderr}")
        found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return found


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: the first column is text, the others are figures."""
    texts = [list(columns), *([_text(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    print(f"\n{title}")
    for row in texts:
        first, *others = (
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def write(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures to a file, if one was named."""
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
