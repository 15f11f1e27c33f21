"""Reports what an update changed, what it could not apply, and what is left to do.

    updated.py TEMPLATE ANSWERS_FILE OLD_RELEASE NEW_RELEASE

Copier runs it in the service with its own Python, so Copier's dependencies are
available. It prints Markdown, for the terminal and for a pull request.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml
from jinja2 import Environment, TemplateError
from pathspec import GitIgnoreSpec

# Headings of CHANGELOG.md, most important first.
HEADINGS = ("To do", "Security", "Removed", "Changed", "Fixed", "Added")

# Where a team's change belongs, by the path that they edited instead.
PLACES = {
    "bulwark/": "`app/`: docs/extend.md shows how",
    "tests/bulwark/": "`tests/app/`",
    "deploy/nginx/": "`app/nginx/`, which updates don't change",
    "deploy/apache/": "`app/apache/`, which updates don't change",
    "compose.yaml": "`compose.override.yaml`, which Compose reads as well",
    "deploy/docker/": "`compose.override.yaml`, or an image built from this one",
    "deploy/systemd/": "a drop-in: `systemctl edit` on the server makes one",
    "deploy/fail2ban/": "your own file in `/etc/fail2ban/jail.d/`",
    "deploy/shipping/": "`/etc/NAME/shipping.env`, or `systemctl edit NAME-shipping`",
    ".github/": "your own workflow beside it",
    "pyproject.toml": "`dependencies`, or a section that the template does not have",
}
CODEMOD = "bin/codemod"  # this release's, which is in the service by now
LABELS = ("before updating", "last update", "after updating")  # as Copier writes them


class Change(NamedTuple):
    """A file of the template that differs between two releases."""

    kind: str  # A, D, M or R, as in git diff --name-status
    source: str  # in the old release of the template
    target: str  # in the new one
    old: str  # in a service
    new: str


class Template:
    """The source of an update: a clone, two releases and the service's answers."""

    def __init__(self, clone: Path, answers: Path, old: str, new: str) -> None:
        self.clone, self.old, self.new = clone, old, new
        self.answers = yaml.safe_load(answers.read_text())
        self.answered = yaml.safe_load(git_show(f"HEAD:./{answers}") or b"") or {}
        self.jinja = Environment(autoescape=False, keep_trailing_newline=True)
        rules = yaml.safe_load((clone / "copier.yml").read_text())["_exclude"]
        self.left_out = GitIgnoreSpec.from_lines(
            line
            for rule in rules
            for line in self.render(rule, _copier_operation="update").splitlines()
        )

    def render(self, text: str, **variables: str) -> str:
        """Render a text with the service's answers."""
        if "{" not in text:
            return text
        return self.jinja.from_string(text).render(self.answers, **variables)

    def before(self, path: str) -> bytes:
        """Return a file of the old release, empty if it did not exist."""
        return git_show(f"{self.old}:{path}", at=self.clone) or b""

    def original(self, change: Change) -> bytes:
        """Return a file as the service got it, as far as its answers are known."""
        raw = self.before(change.source)
        if not change.source.endswith(".jinja"):
            return raw
        try:
            return self.jinja.from_string(raw.decode()).render(self.answered).encode()
        except TemplateError:
            return raw

    def changes(self) -> Iterator[Change]:
        """Yield the changes between the releases that concern this service."""
        spoken = git(
            *("diff", "--name-status", "--find-renames", "-z", self.old, self.new),
            *("--", "template"),
            at=self.clone,
        )
        words = iter(split(spoken))
        for status in words:
            source = next(words)
            target = next(words) if status[0] == "R" else source
            if "_copier_conf" not in source:
                names = map(self.name, (source, target))
                change = Change(status[0], source, target, *names)
                if not self.left_out.match_file(change.new):
                    yield change

    def switched_off(self) -> Iterator[Change]:
        """Yield the files that a changed answer removed from this service."""
        listed = git(
            "diff", "--name-only", "--diff-filter=D", "-z", "--relative", "HEAD"
        )
        gone = {path for path in split(listed) if self.left_out.match_file(path)}
        tree = git(
            "ls-tree", "-r", "--name-only", "-z", self.old, "template", at=self.clone
        )
        for source in split(tree) if gone else []:
            if "_copier_conf" not in source and (path := self.name(source)) in gone:
                yield Change("D", source, source, path, path)

    def name(self, source: str) -> str:
        """Return the name of a template file in this service."""
        return self.render(source.removeprefix("template/").removesuffix(".jinja"))

    def diff(self, change: Change) -> str:
        """Return the diff of a file as a Markdown code block, indented for a list."""
        compare = ("diff", "--no-color", "--no-ext-diff", "--find-renames")
        files = ("--", change.source, change.target)
        said = git(*compare, self.old, self.new, *files, at=self.clone).decode()
        hunks = said[max(said.find("@@"), 0) :].rstrip()
        lines = ["```diff", *hunks.splitlines(), "```"]
        return "\n".join(f"  {line}".rstrip() for line in lines)


def git(*command: str, at: Path = Path(), stdin: bytes = b"") -> bytes:
    """Run git; return its output."""
    done = subprocess.run(
        ["git", *command], cwd=at, input=stdin, capture_output=True, check=True
    )
    return done.stdout


def split(listed: bytes) -> list[str]:
    """Split git's NUL-separated output."""
    return listed.decode().split("\0")[:-1]


def git_show(name: str, at: Path = Path()) -> bytes | None:
    """Return a file of a commit, or None if it does not exist."""
    done = subprocess.run(
        ["git", "show", name], cwd=at, capture_output=True, check=False
    )
    return None if done.returncode else done.stdout


def carry_over(path: str, base: bytes, edited: bytes) -> None:
    """Merge the team's changes to a file into the file that replaces it."""
    released = Path(path).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        sides = [Path(folder, name) for name in ("edited", "base", "released")]
        for side, content in zip(sides, (edited, base, released), strict=True):
            side.write_bytes(content)
        labels = [word for label in LABELS for word in ("-L", label)]
        done = subprocess.run(
            ["git", "merge-file", *labels, *map(str, sides)],
            capture_output=True,
            check=False,
        )
        Path(path).write_bytes(sides[0].read_bytes())
    if done.returncode:
        # Index stages as `git merge` writes them: 1 the base, 2 ours, 3 theirs.
        name = git("rev-parse", "--show-prefix").decode().strip() + path
        mode = "100755" if Path(path).stat().st_mode & 0o100 else "100644"
        lines = [f"0 {'0' * 40}\t{name}"]
        for stage, content in enumerate((base, edited, released), start=1):
            blob = git("hash-object", "-w", "--stdin", stdin=content).decode().strip()
            lines.append(f"{mode} {blob} {stage}\t{name}")
        git("update-index", "--index-info", stdin="\n".join(lines).encode())


def where_it_went(path: str) -> str:
    """Return which of the team's commits moved or deleted a file."""
    (commit,) = git("log", "-1", "--format=%h", "--", path).decode().split() or [""]
    if not commit:
        return "it is not in this service"
    moves = git(
        *("show", "--format=", "--name-status", "--find-renames", "-z", "--relative"),
        commit,
    )
    words = moves.decode().split("\0")
    for status, old, new in zip(words, words[1:], words[2:], strict=False):
        if status.startswith("R") and old == path:
            return f"commit {commit} moved it to `{new}`"
    return f"commit {commit} deleted it"


def missed(template: Template, change: Change) -> str | None:
    """Apply a change that Copier could not, or return what is missing."""
    if link := link_in_the_way(change.new) or link_in_the_way(change.old):
        return beyond(template, change, link)
    here = Path(change.new).exists()
    match change.kind:
        case "M" if not here:
            return (
                f"`{change.new}` changed, but {where_it_went(change.new)}, so this"
                f" change was not applied:\n\n{template.diff(change)}"
            )
        case "R" if here:
            return renamed(template, change)
        case "D" if is_edited(template, change):
            # The original of a file with answers is not known for certain.
            had = "may have" if change.source.endswith(".jinja") else "had"
            return (
                f"`{change.old}` was removed: this release, with your answers, has no"
                f" such file. You {had} edited it. To see your version:"
                f" `git show HEAD:./{change.old}`"
            )
    return None


@cache
def links() -> set[str]:
    """Return the symbolic links and submodules, which Copier did not change."""
    lines = split(git("ls-files", "--stage", "-z"))
    return {
        line.partition("\t")[2]
        for line in lines
        if line.startswith(("120000", "160000"))
    }


def link_in_the_way(path: str) -> str | None:
    """Return the link or submodule that replaces a file or one of its folders."""
    names = [path, *map(str, Path(path).parents)]
    return next((name for name in names if name in links()), None)


def beyond(template: Template, change: Change, link: str) -> str:
    """Describe a change that a link or submodule kept from being applied."""
    path, what = Path(link), "another repository"
    if path.is_symlink():
        what = f"a link to `{path.readlink()}`"
    if change.kind == "R" and not link_in_the_way(change.new):
        return (
            f"`{change.new}` is new here: the release renamed `{change.old}`, but"
            f" `{link}` is {what} here, which was not changed."
        )
    said = {
        "A": f"`{change.new}` is new",
        "D": f"`{change.old}` was removed from the release",
        "R": f"`{change.new}` is the new name of `{change.old}`",
    }.get(change.kind, f"`{change.new}` changed")
    return (
        f"{said}, but `{link}` is {what} here, so this was not applied:"
        f"\n\n{template.diff(change)}"
    )


def renamed(template: Template, change: Change) -> str | None:
    """Carry the team's changes over to a file that the release renamed."""
    yours = git_show(f"HEAD:./{change.old}")
    if yours is None:
        return (
            f"`{change.new}` is new here: the release renamed `{change.old}`, which"
            " you deleted. Delete this one as well if you don't need it."
        )
    if is_edited(template, change):
        carry_over(change.new, template.original(change), yours)
    return None


def is_edited(template: Template, change: Change) -> bool:
    """Return whether the team had changed a file of the old release."""
    yours = git_show(f"HEAD:./{change.old}")
    return yours is not None and yours != template.original(change)


def conflicts() -> list[str]:
    """Describe each file with conflicts, and where the team's change belongs."""
    names = git("diff", "--name-only", "--diff-filter=U", "-z", "--relative")
    found = []
    for name in split(names):
        places = [text for path, text in PLACES.items() if name.startswith(path)]
        better = f" Put your change in {places[0]}." if places else ""
        found.append(f"`{name}`: you and the release changed the same lines.{better}")
    return found


def own_lines() -> tuple[str, ...]:
    """List the lines in the team's files that this release requires to change."""
    if not Path(CODEMOD).is_file():
        return ()
    command = [sys.executable, "-B", CODEMOD, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        reason = done.stderr.strip().splitlines()
        return (f"`{CODEMOD} --check` failed: {reason[-1] if reason else ''}",)
    if not done.stdout:
        return ()
    return (
        f"Run `{CODEMOD}` before `bin/setup`: it changes these lines, except those",
        "with `!`, which you change.\n",
        "```text",
        done.stdout.rstrip(),
        "```",
    )


def entries(changelog: str) -> dict[str, list[str]]:
    """Return the entries of all releases by their heading."""
    found: dict[str, list[str]] = {heading: [] for heading in HEADINGS}
    entry: list[str] = []
    for line in changelog.splitlines():
        if line.startswith("#"):
            entry = found.get(line.removeprefix("### "), [])
        elif line.startswith("- "):
            entry.append(line)
        elif line.startswith("  ") and entry:
            entry[-1] += f"\n{line}"
    return found


def section(heading: str, *parts: str) -> str:
    """Return a part of the report."""
    return "\n".join([f"\n## {heading}\n", *parts])


def report(template: Template) -> Iterator[str]:
    """Yield the parts of the report, most important first."""
    yield f"# Bulwark {template.new}"
    changes = [*template.changes(), *template.switched_off()]
    not_here = [text for change in changes if (text := missed(template, change))]
    if waiting := conflicts():
        yield section(
            "Conflicts",
            "Resolve these: above `=======` is your version, below it the release's.",
            "Edit each file, then `git add` it.\n",
            *[f"- {text}" for text in waiting],
        )
    if not_here:
        yield section("Not here", *[f"- {text}" for text in not_here])
    if lines := own_lines():
        yield section("Your code", *lines)
    before = entries(template.before("CHANGELOG.md").decode())
    now = entries((template.clone / "CHANGELOG.md").read_text())
    for heading in HEADINGS:
        if news := [entry for entry in now[heading] if entry not in before[heading]]:
            yield section(heading, *news)


def main() -> None:
    """Print the report."""
    clone, answers, old, new = sys.argv[1:]
    for part in report(Template(Path(clone), Path(answers), old, new)):
        print(part)


if __name__ == "__main__":
    main()
