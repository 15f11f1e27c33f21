"""What bin/update needs of this service's repository, and its messages."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

SERVICE = Path(__file__).resolve().parent.parent
ANSWERS = ".copier-answers.yml"
SECRETS = (SERVICE / ".env", SERVICE / ".env.production")
LINK, SUBMODULE = "120000", "160000"  # modes in git's index
UPDATED, CONFLICTS, NOTHING_CHANGED = 0, 1, 2  # exit codes


def git(*command: str) -> subprocess.CompletedProcess[str]:
    """Run git in the service, without hooks: they are meant for people's commits."""
    try:
        return subprocess.run(  # noqa: S603
            ["git", "-c", "core.hooksPath=/dev/null", *command],  # noqa: S607
            cwd=SERVICE,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        fail("git is not installed. Updates need it.", "Debian: apt-get install git")


def git_path(name: str) -> Path:
    """Return the path of a file in this repository's git folder."""
    return SERVICE / git("rev-parse", "--git-path", name).stdout.strip()


def changes() -> str:
    """Return the uncommitted changes, whatever git's settings hide."""
    return git("status", "--porcelain", "--untracked-files=normal").stdout


def ignored_patterns() -> list[str]:
    """Return patterns for all files that git ignores now.

    Copier's git uses them instead of the user's global ignore file. In Copier's own
    repositories, that file would hide template files and lose the edits to them.
    """
    top = git("rev-parse", "--show-toplevel").stdout.rstrip("\n")
    listed = ("ls-files", "--others", "--ignored", "--exclude-standard", "--directory")
    names = git("-C", top, *listed, "-z").stdout.split("\0")[:-1]
    return ["/" + escaped(name) for name in names if "\n" not in name]


def links() -> list[str]:
    """Return the symbolic links and submodules of this service.

    Copier would replace a link to a file with a file, and write through a link to a
    folder. It would then restore the link and lose the release's changes there.
    """
    lines = git("ls-files", "--stage", "-z").stdout.split("\0")[:-1]
    return [
        line.partition("\t")[2] for line in lines if line.startswith((LINK, SUBMODULE))
    ]


def escaped(name: str) -> str:
    """Return a pattern that matches only this name."""
    return re.sub(r"([\\*?\[\]!# ])", r"\\\1", name)


def read_secrets() -> dict[Path, bytes | None]:
    """Return the contents of the ignored files that an update adds to."""
    return {
        path: path.read_bytes() if path.exists() else None
        for path in SECRETS
        if not path.exists() or os.access(path, os.R_OK)
    }


def undo(secrets: dict[Path, bytes | None], ignored: str) -> None:
    """Undo an update. The tree was clean, so every change is the update's."""
    ignore_signals()
    restored = git("restore", "--source=HEAD", "--staged", "--worktree", "--", ".")
    if restored.returncode:
        fail(
            "The update failed, and its changes could not be undone:",
            restored.stderr.strip(),
            "Fix that, then run bin/update again: it stashes them and starts over.",
        )
    others = ("ls-files", "--others", "--exclude-standard", "-z")
    made = git("-c", f"core.excludesFile={ignored}", *others).stdout
    for name in made.split("\0")[:-1]:
        path = SERVICE / name
        path.unlink()
        for folder in path.parents:
            if any(folder.iterdir()):
                break
            folder.rmdir()
    for path, content in secrets.items():
        if content is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != content:
            path.write_bytes(content)


def ignore_signals() -> None:
    """Ignore signals while the update is undone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def log(*lines: str) -> None:
    """Print to stderr; the update's report goes to stdout."""
    print(*lines, sep="\n", file=sys.stderr)


def fail(*lines: str) -> NoReturn:
    """Print what is wrong and how to fix it, then exit."""
    log(*lines)
    sys.exit(NOTHING_CHANGED)
