"""What must be true before bin/update changes anything."""

import fcntl
import re
from typing import TextIO

from update_repository import ANSWERS, SERVICE, changes, fail, git, git_path, log

UNFINISHED = (
    "MERGE_HEAD",
    "rebase-merge",
    "rebase-apply",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
)


def refuse_outside_git() -> None:
    """Exit if this service is not in a git repository."""
    listed = git("ls-files")
    if not listed.stdout:
        fail(
            f"{SERVICE} is not in git, which an update needs to find your changes.",
            listed.stderr.strip(),
            "Commit it first: git init && git add --all && git commit -m 'The service'",
        )


def acquire_lock(marker: TextIO) -> None:
    """Exit if another update is running; Copier inherits the lock until it exits."""
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail("Another update of this repository is running. Wait until it finishes.")


def write_marker(marker: TextIO, commit: str) -> None:
    """Record the commit that an update started from; empty if none is running."""
    marker.truncate(0)
    marker.write(commit)
    marker.flush()


def stash_interrupted_update(marker: TextIO) -> None:
    """Stash what a killed update left: it may include work done since then."""
    marker.seek(0)
    if (start := marker.read().strip()) and changes():
        git("reset", "--quiet")  # git can't stash conflicts
        note = f"Left by an interrupted update of {start[:12]}"
        git("stash", "push", "--quiet", "--include-untracked", "--message", note)
        log("An update was interrupted. Its changes are stashed: git stash show -p")
    write_marker(marker, "")


def refuse_unsaved_work() -> None:
    """Exit if there are uncommitted changes: they would mix with the update's."""
    if unfinished := [name for name in UNFINISHED if git_path(name).exists()]:
        fail(
            f"Something in git is unfinished ({unfinished[0]}): nothing was updated.",
            "Finish or abort it first: `git status` shows how.",
        )
    if changed := changes():
        fail(
            "There are uncommitted changes, so nothing was updated:",
            changed.rstrip(),
            "Commit or stash them: git stash --include-untracked",
        )
    files = git("ls-files", "-v").stdout.splitlines()
    if hidden := [line[2:] for line in files if line[0] == "S" or line[0].islower()]:
        fail(
            "git ignores changes to these files, so nothing was updated:",
            *hidden,
            "Undo that: git update-index --no-skip-worktree --no-assume-unchanged",
        )


def refuse_lost_answers() -> None:
    """Exit if the answers file does not name the template and the release."""
    path = SERVICE / ANSWERS
    way_back = f"Restore it from git: git log -- {ANSWERS}"
    try:
        text = path.read_text("utf-8") if path.exists() else ""
    except UnicodeDecodeError:
        fail(f"{ANSWERS} is not UTF-8 text.", way_back)
    for name in ("_src_path", "_commit"):
        if not re.search(rf"^{name}: *\S", text, re.MULTILINE):
            fail(f"{ANSWERS} has no `{name}`, which an update needs.", way_back)
