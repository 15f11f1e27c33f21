"""Deletes the settings of developers' tools that the team deleted before.

    deleted.py TEMPLATE OLD_RELEASE

Copier runs it in the service after the report of an update, because its
`_skip_if_exists` creates each missing file again. A file that the old release did not
have yet is new, and stays. Standard library only.
"""

import subprocess
import sys
from pathlib import Path

TOOLS = (
    *(".devcontainer/", ".editorconfig", ".gitattributes", ".pre-commit-config.yaml"),
    *(".vscode/", "AGENTS.md"),
)


def files(release: str, at: Path) -> set[str]:
    """Return the files of a commit, relative to a folder."""
    command = ["git", "ls-tree", "-r", "--name-only", "-z", release]
    done = subprocess.run(
        command, cwd=at, capture_output=True, encoding="utf-8", check=True
    )
    return set(done.stdout.split("\0")[:-1])


def main() -> None:
    """Delete what the service had in the old release, and no longer has."""
    template, old = Path(sys.argv[1]), sys.argv[2]
    before = {name.removeprefix("template/") for name in files(old, template)}
    for name in before - files("HEAD", Path()):
        file = Path(name)
        if name.startswith(TOOLS) and file.is_file():
            file.unlink()
            if file.parent != Path() and not any(file.parent.iterdir()):
                file.parent.rmdir()


if __name__ == "__main__":
    main()
