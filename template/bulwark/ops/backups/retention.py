"""The backups in a folder: which is the newest, and which are deleted."""

import re
from pathlib import Path

from bulwark.ops.backups.contents import BackupError


def delete_oldest(new: Path, slug: str, keep: int) -> None:
    """Delete the oldest backups beyond `keep`, and no other files.

    The new one stays even if a wrong clock makes others seem newer.
    """
    others = [path for path in all_of(new.parent, slug) if path != new]
    for path in others[: max(0, len(others) + 1 - keep)]:
        path.unlink()


def newest(folder: Path, slug: str) -> Path:
    """Return the newest backup of a service, by the time in its name."""
    backups = all_of(folder, slug)
    if not backups:
        raise BackupError(
            f"There is no backup of {slug!r} in {folder}. Run `flask backup {folder}`"
            " first."
        )
    return backups[-1]


def all_of(folder: Path, slug: str) -> list[Path]:
    """Return the backups of a service, oldest first."""
    pattern = re.compile(rf"{re.escape(slug)}-\d{{8}}T\d{{6}}Z\.backup")
    return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
