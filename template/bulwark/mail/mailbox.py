"""The mailbox in development: emails are files, which /dev/mailbox shows."""

from pathlib import Path

from bulwark import settings
from bulwark.database import utcnow
from bulwark.settings import urls


def folder() -> Path:
    """Return the folder of the files."""
    return Path(urls.path_of(settings.current().mail_url))


def save(message: bytes) -> None:
    """Save an email; it gets its final name when it is complete."""
    files = folder()
    files.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{utcnow():%Y%m%d-%H%M%S-%f}"
    (files / f"{name}.part").write_bytes(message)
    (files / f"{name}.part").rename(files / f"{name}.eml")
