"""Ten releases that follow the working tree, for tests of updates.

Each function changes a clone of the template as a release would; its docstring is the
entry in CHANGELOG.md. They touch the lines beside those that teams edit.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RELEASE, release
from tests.support.shared import made_once, shared_folder
from tests.template.edits import append, replace, write

# A comment in each kind of file; "# harder" in all others.
HARDER = {
    ".css": "/* harder */\n",
    ".html": "{#- harder #}\n",
    ".js": "// harder\n",
    ".mako": "## harder\n",
    ".md": "<!-- harder -->\n",
    ".txt": "{#- harder #}\n",
    "deploy/certbot/requirements.txt": "# harder\n",
}
# What follows in a file is the team's; a release adds its lines before it.
YOURS = "\n# Yours from here"
# Seeds, and what a command writes and a test compares.
NOT_HARDENED = (
    *(".gitattributes", "app/", "tests/app/", "AGENTS.md", ".devcontainer/"),
    *(".editorconfig", ".pre-commit-config.yaml", ".vscode/"),
    *("bulwark/access.txt", "docs/events.md", "renovate.json"),
    "bulwark/ops/new/sources/",
    "bulwark/identity/security/common_passwords.bin",
)

RENAMED = {
    "bulwark/web/input_validation.py": "bulwark/web/input_checks.py",
    "deploy/fail2ban/jail.conf": "deploy/fail2ban/jails.conf",
}
HANDED_OVER = "deploy/README.md"  # the team's from this release on
FIX = (
    'SAFE_METHODS = ("GET", "HEAD", "OPTIONS")',
    'SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))',
)

QUESTION = """
robots:
  type: bool
  help: Shall search engines find it?
  default: false
"""
ROBOTS = "{% if robots is defined and not robots %}/deploy/robots.txt{% endif %}"
SECRET = """\
    Secret("APP_NEW_KEY", "Lost: nothing.", random_text),
]
DATABASE_PASSWORD"""
SETTING = """\
    new_key: str = setting("a key that a release needs", secret=True)

"""
MIGRATION = '''\
"""People have a language."""

import sqlalchemy as sa
from alembic import op

revision = "bulwark_later"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("language", sa.String(12)))


def downgrade() -> None:
    with op.batch_alter_table("users") as users:
        users.drop_column("language")
'''


def harden_every_file(template: Path) -> None:
    """Every file of the template is harder to break."""
    base = template / "template"
    for file in sorted(path for path in base.rglob("*") if path.is_file()):
        name = file.relative_to(base).as_posix()
        if not name.startswith(NOT_HARDENED):
            kind = Path(name.removesuffix(".jinja")).suffix
            line = HARDER.get(name) or HARDER.get(kind, "# harder\n")
            theirs, mark, yours = file.read_text().partition(YOURS)
            file.write_text(f"{theirs}{line}{mark}{yours}")


def add_files(template: Path) -> None:
    """The base has a new module, and operators have instructions."""
    write(template / "template/bulwark/newer.py", '"""Is new."""\n')
    write(template / "template/docs/operations.md", "# Operations\n\nLook at it.\n")


def rename_files(template: Path) -> None:
    """What bounds bodies is called so."""
    for old, new in RENAMED.items():
        (template / "template" / old).rename(template / "template" / new)
    for file in (template / "template").rglob("*.py"):
        text = file.read_text()
        file.write_text(re.sub(r"\binput_validation\b", "input_checks", text))


def delete_files(template: Path) -> None:
    """Rules that only watched are gone."""
    (template / "template/deploy/nginx/crs/watch.conf").unlink()
    (template / "template/tests/bulwark/web/test_static_files.py").unlink()


def ask_more(template: Path) -> None:
    """Search engines may be let in."""
    questions = template / "copier.yml"
    exclude(questions, ROBOTS)
    append(questions, QUESTION)
    write(template / "template/deploy/robots.txt", "User-agent: *\nAllow: /\n")


def change_a_default(template: Path) -> None:
    """New services speak TLS 1.3 alone."""
    replace(
        template / "copier.yml",
        "  default: intermediate\n",
        "  default: modern\n",
    )


def need_a_secret(template: Path) -> None:
    """The base has one more key."""
    base = template / "template"
    replace(base / "bin/secrets", "]\nDATABASE_PASSWORD", SECRET)
    first = "    base_url: str = setting("
    replace(base / "bulwark/settings/base.py", first, SETTING + first)
    last = "# APP_ENCRYPTION_KEYS=\n"
    replace(base / ".env.example", last, f"{last}\n# A new one.\n# APP_NEW_KEY=\n")
    # The inventory of keys lists it (OWASP ASVS 5.0, 11.1.2).
    row = "| `APP_PASSWORD_PEPPER` |"
    new = "| `APP_NEW_KEY` | – | – | – | – |\n"
    replace(base / "docs/asvs.md", row, new + row)


def add_a_column_to_users(template: Path) -> None:
    """People have a language."""
    base = template / "template/bulwark"
    newest = max((base / "migrations/versions").glob("*.py"))
    (head,) = re.findall(r'^revision = "(\w+)"', newest.read_text(), re.MULTILINE)
    write(newest.with_name("9999_language.py"), MIGRATION.format(head=head))
    column = "    language: Mapped[str | None] = mapped_column(String(12))\n"
    next_one = "\n    # Second factors"
    replace(base / "identity/models.py", next_one, column + next_one)


def change_the_seeds(template: Path) -> None:
    """New services begin differently, and the page on deployment is yours."""
    base = template / "template"
    append(base / "app/views.py", "# new\n")
    append(base / "tests/app/test_home.py", "# new\n")
    append(base / "README.md.jinja", "\nNew services have more to say.\n")
    write(base / "app/newer.py", '"""Is new."""\n')
    (base / "app/nginx/README.md").unlink()
    append(base / HANDED_OVER, "\nNew services read this.\n")
    questions = template / "copier.yml"
    exclude(questions, "*.orig")
    exclude(
        questions, "{% if _copier_operation == 'update' %}/deploy/README.md{% endif %}"
    )
    replace(
        questions,
        "_skip_if_exists:\n",
        f"_skip_if_exists:\n  - /{HANDED_OVER}\n",
    )


def change_neighbouring_lines(template: Path) -> None:
    """Limits are tighter, and packages newer."""
    base = template / "template"
    for name, old, new in (
        (
            ".github/workflows/ci.yml",
            "timeout-minutes: 20\n    steps:",
            "timeout-minutes: 15\n    steps:",
        ),
        ("bulwark/web/rate_limits.py", "REDIS_PAUSE = 5", "REDIS_PAUSE = 4"),
        ("bulwark/web/proxy.py", *FIX),
        (
            "bulwark/templates/bulwark/layout.html",
            "<p>Development mode.",
            "<p>Mode: development.",
        ),
        ("compose.yaml.jinja", "pids_limit: 200", "pids_limit: 150"),
        ("deploy/docker/Dockerfile", "uv==", "uv>="),
        ("gunicorn.conf.py", "max_requests = 10_000", "max_requests = 5_000"),
        (
            "pyproject.toml",
            "# Yours: one package a line.",
            "# Yours: a package a line.",
        ),
        ("pyproject.toml", "# The template's: what", "# Of the template: what"),
        (
            "pyproject.toml",
            '  "bcrypt>=5.0",\n',
            '  "bcrypt>=5.0",\n  "blinker>=1.9",\n',
        ),
    ):
        text = (base / name).read_text()
        assert old in text, (name, old)
        (base / name).write_text(text.replace(old, new, 1))


RELEASES: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("Security", harden_every_file),
    ("Added", add_files),
    ("Changed", rename_files),
    ("Removed", delete_files),
    ("Added", ask_more),
    ("Changed", change_a_default),
    ("Added", need_a_secret),
    ("Added", add_a_column_to_users),
    ("Changed", change_the_seeds),
    ("Security", change_neighbouring_lines),
)
VERSIONS = [RELEASE, *(f"v9999.{number}.0" for number in range(1, len(RELEASES) + 1))]


def has(version: str, change: Callable[[Path], None]) -> bool:
    """Tell whether a release, or one before it, made a change."""
    return VERSIONS.index(version) > [made for _, made in RELEASES].index(change)


def release_all(template: Path) -> None:
    """Release everything in order, each with an entry in CHANGELOG.md."""
    for version, (heading, change) in zip(VERSIONS[1:], RELEASES, strict=True):
        change(template)
        changelog = template / "CHANGELOG.md"
        before, mark, older = changelog.read_text().partition("\n## Unreleased\n")
        assert mark
        news = (
            f"\n## {version[1:]} (2030-01-01)\n\n### {heading}\n\n- {change.__doc__}\n"
        )
        changelog.write_text(before + mark + news + older)
        release(template, version)


def released(template: Path, factory: pytest.TempPathFactory) -> Path:
    """Return a template that has ten more releases; all tests share it."""

    def make(folder: Path) -> None:
        shutil.copytree(template, folder, symlinks=True)
        release_all(folder)

    return made_once(shared_folder(factory) / "releases/bulwark", make)


def exclude(questions: Path, pattern: str) -> None:
    replace(questions, "_exclude:\n", f'_exclude:\n  - "{pattern}"\n')
