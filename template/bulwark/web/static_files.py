"""Static files: versioned URLs, and `flask collect`, which exports them."""

import gzip
import hashlib
import os
import shutil
import stat
from base64 import b64encode
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
from flask import Flask, current_app, g, render_template
from flask.cli import with_appcontext
from flask_login import AnonymousUserMixin

from bulwark import settings
from bulwark.web import errors

# Error pages that the proxy serves itself, without a request to the service.
SAID_BY_PROXY = {
    400: (errors.TITLES[400], None),
    403: (
        errors.TITLES[403],
        "Use a link that begins with https://",
    ),
    404: (errors.TITLES[404], errors.HINTS[404]),
    405: (errors.TITLES[405], None),
    408: ("The request timed out", "Check your connection, then try again."),
    411: (errors.TITLES[400], "The request must include its length."),
    412: ("This page has changed", "Reload the page, then try again."),
    413: (errors.TITLES[413], errors.HINTS[413]),
    414: ("This address is too long", errors.HINTS[404]),
    416: (errors.TITLES[400], "The file is shorter than the requested range."),
    417: (errors.TITLES[400], None),
    421: ("This page is on another host", errors.HINTS[404]),
    429: (errors.TITLES[429], "Wait a few seconds, then try again."),
    431: (errors.TITLES[413], "Delete the cookies of this site, then try again."),
    500: (errors.TITLES[500], errors.HINTS[500]),
    501: (errors.TITLES[400], None),
    503: (
        "We will be back in a moment",
        "The service is starting or being updated. Try again in a few seconds.",
    ),
    505: (errors.TITLES[400], None),
}
COMPRESSED = {".css", ".js", ".json", ".map", ".svg", ".txt", ".xml"}
DIGITS = 16


def init_app(app: Flask) -> None:
    """Add a `v` parameter to the URLs of static files, and add the command."""
    app.url_defaults(_name_content)
    app.add_template_global(integrity)
    app.cli.add_command(collect)


def _name_content(endpoint: str, values: dict[str, Any]) -> None:
    """Add the content's digest, so that browsers can cache a file forever."""
    if endpoint != "static" and not endpoint.endswith(".static"):
        return
    if digest := _digest_of(endpoint, values["filename"]):
        values["v"] = digest.hex()[:DIGITS]


def integrity(endpoint: str, filename: str) -> str:
    """Return a file's digest for the `integrity` attribute of its tag (W3C SRI)."""
    digest = _digest_of(endpoint, filename)
    return f"sha256-{b64encode(digest).decode()}" if digest else ""


def _digest_of(endpoint: str, filename: str) -> bytes | None:
    owner = current_app.blueprints.get(endpoint.rpartition(".")[0], current_app)
    # Not with pathlib, which takes ten times as long, for five files of each page.
    path = os.path.join(owner.static_folder or "", filename)  # noqa: PTH118
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return _digest(path, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


@lru_cache
def _digest(path: str, _changed: int) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@with_appcontext
def collect(folder: Path) -> None:
    """Export static files, also compressed, and error pages to FOLDER for the proxy.

    The proxy serves FOLDER as its root. The current contents are replaced.
    """
    if (folder / "errors").is_dir():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise click.ClickException(
            f"{folder} contains other files, which would be deleted. Use a new folder."
        )
    for owner in (current_app, *current_app.blueprints.values()):
        if owner.static_folder and owner.static_url_path:
            target = folder / owner.static_url_path.lstrip("/")
            shutil.copytree(owner.static_folder, target, dirs_exist_ok=True)
    for path in [path for path in folder.rglob("*") if path.suffix in COMPRESSED]:
        packed = gzip.compress(path.read_bytes(), mtime=0)
        path.with_name(f"{path.name}.gz").write_bytes(packed)
    (folder / "errors").mkdir(parents=True)
    with current_app.test_request_context(base_url=settings.current().base_url):
        g._login_user = AnonymousUserMixin()
        for code, (title, hint) in SAID_BY_PROXY.items():
            page = render_template(
                "bulwark/error.html", code=code, title=title, hint=hint, by_proxy=True
            )
            (folder / f"errors/{code}.html").write_text(page, encoding="utf-8")
