"""Retention: old backups are deleted."""

import re
from pathlib import Path


def delete_oldest(new: Path, slug: str, keep: int) -> None:
    """Delete the oldest backups beyond `keep`, and no other files.

    The new one stays even if a wrong clock makes others seem newer.
    """
    pattern = re.compile(rf"{re.escape(slug)}-\d{{8}}T\d{{6}}Z\.backup")
    backups = {path for path in new.parent.iterdir() if pattern.fullmatch(path.name)}
    others = sorted(backups - {new})
    for path in others[: max(0, len(others) + 1 - keep)]:
        path.unlink()
