"""Stages the parts of an update that git would not commit: ignored files, file modes.

    staged.py TEMPLATE OLD_RELEASE NEW_RELEASE

Copier runs it in the service after the report and appends its output. Standard library
only.
"""

import os
import subprocess
import sys
from pathlib import Path

SEEDS = ("app/", "tests/app/", "README.md")  # updates don't add these
PLAIN, EXECUTABLE = "100644", "100755"


def git(
    *command: str, at: Path = Path(), stdin: str = "", **environment: str
) -> list[str]:
    """Run git; return what it lists."""
    done = subprocess.run(
        ["git", *command],
        cwd=at,
        env=os.environ | environment,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=True,
    )
    return done.stdout.split("\0")[:-1]


def modes(template: Path, release: str) -> dict[str, str]:
    """Return the mode of each file in a release, by its name in a service."""
    found = {}
    for line in git("ls-tree", "-r", "-z", release, "template", at=template):
        mode, path = line.split()[0], line.partition("\t")[2]
        name = path.removeprefix("template/").removesuffix(".jinja")
        if not name.startswith(SEEDS):
            found[name] = mode
    return found


def stage_ignored(new: list[str]) -> None:
    """Stage new files that git ignores, and list them."""
    # Use the user's ignore rules, not those that bin/update gives Copier's git.
    listed = ("ls-files", "--others", "--exclude-standard", "-z")
    seen = set(git(*listed, GIT_CONFIG_COUNT="0"))
    ignored = [name for name in new if name not in seen]
    if ignored:
        git("add", "--force", "--", *ignored)
        print(
            "\n## Ignored by git",
            "\nThese files are new, but your git ignore rules match them. They are"
            " staged, so your\ncommit includes them:\n",
            *[f"- `{name}`" for name in ignored],
            sep="\n",
        )


def sees_modes() -> bool:
    """Return whether git tracks the executable bits of files."""
    asked = ("config", "--null", "--type=bool", "--default=true", "core.fileMode")
    return git(*asked) != ["false"]


def stage_modes(old: dict[str, str], new: dict[str, str]) -> None:
    """Stage the release's executable bits, except where the team changed them."""
    before = {
        line.partition("\t")[2]: line.split()[0]
        for line in git("ls-tree", "-r", "-z", "HEAD")
    }
    lines = []
    listed = ("ls-files", "--stage", "-z")
    # update-index needs names relative to the top of the repository.
    for line, full in zip(git(*listed), git(*listed, "--full-name"), strict=True):
        (mode, blob, stage), name = line.split()[:3], line.partition("\t")[2]
        had = before.get(name)
        mine = had is not None and had != old.get(name, had)
        wanted = had if mine else new.get(name)
        if stage == "0" and {mode, wanted} == {PLAIN, EXECUTABLE}:
            path = full.partition("\t")[2]
            lines.append(f"{wanted} {blob} 0\t{path}\0")
    git("update-index", "-z", "--index-info", stdin="".join(lines))


def main() -> None:
    """Stage what git would leave out."""
    template, before, now = Path(sys.argv[1]), *sys.argv[2:]
    release = modes(template, now)
    untracked = set(git("ls-files", "--others", "-z"))
    new = [name for name in release if name in untracked]
    stage_ignored(new)
    if not sees_modes():
        run = [name for name in new if release[name] == EXECUTABLE]
        if run:
            git("add", "--force", "--chmod=+x", "--", *run)
        stage_modes(modes(template, before), release)


if __name__ == "__main__":
    main()
