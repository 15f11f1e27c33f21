"""bin/codemod: what it rewrites in a team's files, what it lists, what it leaves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, commit, git
from tests.template.edits import write

TEMPLATE = ROOT / "template"
# What has been importable since the first services, and what it is in the facade.
PUBLIC = {
    "bulwark.access.permission": "permission",
    "bulwark.access.public": "public",
    "bulwark.access.recent": "recent",
    "bulwark.access.signed_in": "signed_in",
    "bulwark.database.Model": "Model",
    "bulwark.database.UTCDateTime": "UTCDateTime",
    "bulwark.database.db": "db",
    "bulwark.database.utcnow": "utcnow",
    "bulwark.environment.UnusableError": "UnusableError",
    "bulwark.environment.setting": "setting",
    "bulwark.environment.whole_number": "whole_number",
    "bulwark.environment.words": "words",
    "bulwark.identity.models.BaseUser": "BaseUser",
    "bulwark.inputs.body_limit": "body_limit",
    "bulwark.inputs.json_object": "json_object",
    "bulwark.jobs.queue": "queue",
    "bulwark.limits.limit": "limit",
    "bulwark.mail.send": "send_email",
}
MODULES = {
    "a name, in several lines": (
        "from bulwark.access import (\n    public,\n    signed_in as members,\n)\n",
        "from bulwark import public, signed_in as members\n",
    ),
    "a comment in what is rewritten": (
        "from bulwark.access import (\n    public,  # why\n)\n",
        "# why\nfrom bulwark import public\n",
    ),
    "another name in the facade": (
        "from bulwark.mail import send\n\nsend('a', 'b', 'c')\n",
        "from bulwark import send_email as send\n\nsend('a', 'b', 'c')\n",
    ),
    "a module, under a name of its own": (
        "import bulwark.database as d\n\n\nclass A(d.Model):\n    at = d.utcnow()\n",
        "from bulwark import Model, utcnow\n\n\nclass A(Model):\n    at = utcnow()\n",
    ),
    "a module by its full name": (
        "import bulwark.jobs\n\nbulwark.jobs.queue.task(print)\n",
        "from bulwark import queue\n\nqueue.task(print)\n",
    ),
    "beside a module that is not ours": (
        "import os, bulwark.limits\n\nbulwark.limits.limit(os.name)\n",
        "import os\nfrom bulwark import limit\n\nlimit(os.name)\n",
    ),
    "a name that means something else here": (
        "from bulwark import limits\n\nlimit = limits.limit('1 per day')\n",
        "from bulwark import limit as bulwark_limit\n\n"
        "limit = bulwark_limit('1 per day')\n",
    ),
    "a parameter with the name of a module": (
        "from bulwark import access\n\n\n@access.public\ndef f(access):\n"
        "    return access.public\n",
        "from bulwark import public\n\n\n@public\ndef f(access):\n"
        "    return access.public\n",
    ),
    "in a function, with others on the line": (
        "def f():\n    x = 1; from bulwark.database import db; return db\n",
        "def f():\n    x = 1; from bulwark import db; return db\n",
    ),
    "in an f-string": (
        "from bulwark import database\n\nx = f'at {database.utcnow():%Y} ä'\n",
        "from bulwark import utcnow\n\nx = f'at {utcnow():%Y} ä'\n",
    ),
    "in text": (
        '"""Uses `bulwark.environment.setting`."""\n\n'
        "# bulwark.limits.limit\npage = 'bulwark/letter.html'\n",
        '"""Uses `bulwark.setting`."""\n\n# bulwark.limit\npage = '
        "'bulwark/message.html'\n",
    ),
    "an argument that was renamed": (
        "from bulwark.environment import setting\n\n"
        "x = setting('a key', secret=True, mend='run it')\ny = dict(mend=1)\n",
        "from bulwark import setting\n\n"
        "x = setting('a key', secret=True, fix='run it')\ny = dict(mend=1)\n",
    ),
    "windows line endings": (
        "from bulwark.access import public\r\nx = 1\r\n",
        "from bulwark import public\r\nx = 1\r\n",
    ),
}
BEHIND = {
    "a name that moved and was renamed": (
        "from bulwark.events import tell\n",
        "from bulwark.audit.events import emit as tell\n",
    ),
    "through its module": (
        "from bulwark import events\n\nevents.tell('a')\n",
        "from bulwark.audit import events\n\nevents.emit('a')\n",
    ),
    "by its full name": (
        "import bulwark.events\n\nbulwark.events.tell('a')\n",
        "import bulwark.audit.events\n\nbulwark.audit.events.emit('a')\n",
    ),
    "patched in a test": (
        "from bulwark import events\n\n\ndef test(monkeypatch):\n"
        "    monkeypatch.setattr(events, 'tell', print)\n"
        "    monkeypatch.setattr('bulwark.events.tell', print)\n",
        "from bulwark.audit import events\n\n\ndef test(monkeypatch):\n"
        "    monkeypatch.setattr(events, 'emit', print)\n"
        "    monkeypatch.setattr('bulwark.audit.events.emit', print)\n",
    ),
}
PAGES = {
    "names.html": (
        '{% from "bulwark/facts.html" import happening, moment %}\n'
        '{%- from "bulwark/forms.html" import press as p -%}\n'
        '{% import "bulwark/forms.html" as forms %}\n'
        '<b class="press">press (</b>{{ happening(e) }}{{ p() }}{{ forms.press() }}\n',
        '{% from "bulwark/_display.html" import event_row, moment %}\n'
        '{%- from "bulwark/forms.html" import button_form as p -%}\n'
        '{% import "bulwark/forms.html" as forms %}\n'
        '<b class="press">press (</b>{{ event_row(e) }}{{ p() }}'
        "{{ forms.button_form() }}\n",
    ),
    "staff.html": (
        '{% extends "bulwark/admin/layout.html" %}'
        "{% block room %}{% endblock room %}\n",
        '{% extends "bulwark/admin/layout.html" %}'
        "{% block admin_content %}{% endblock admin_content %}\n",
    ),
    "below_staff.html": (
        '{% extends "staff.html" %}{% block room %}{{ super() }}{% endblock %}\n',
        '{% extends "staff.html" %}'
        "{% block admin_content %}{{ super() }}{% endblock %}\n",
    ),
    "bulwark/account.html": ("{{ event.told }}\n", "{{ event.text }}\n"),
    "own.html": (
        "{% macro press(room) %}{% endmacro %}{{ press(1) }}"
        "{% block room %}{% endblock %}\n",
    )
    * 2,
}


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Return what bin/codemod needs of a service."""
    folder = tmp_path / "a service"
    for name in ("bin", "bulwark"):
        leave = shutil.ignore_patterns("__pycache__", "static", "*.bin")
        shutil.copytree(TEMPLATE / name, folder / name, ignore=leave)
    write(folder / "app/__init__.py", "import bulwark\n\nbulwark.init_app(1)\n")
    write(folder / "tests/app/__init__.py", "")
    (folder / "pyproject.toml").write_text("")
    (folder / ".gitignore").write_text("__pycache__\n.uv\n")
    commit(folder)
    return folder


def codemod(
    service: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [service / "bin/codemod", *options],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def changed(
    service: Path, cases: dict[str, tuple[str, str]]
) -> tuple[dict[str, str], str]:
    """Rewrite a module for each case; return them by name, and what was printed."""
    names = {f"tests/app/test_{number}.py": name for number, name in enumerate(cases)}
    for path, name in names.items():
        (service / path).write_bytes(cases[name][0].encode())
    commit(service)
    done = codemod(service)
    return (
        {name: (service / path).read_bytes().decode() for path, name in names.items()},
        done.stdout,
    )


def test_names_of_the_facade_are_imported_from_it(service: Path) -> None:
    found, printed = changed(service, MODULES)
    assert found == {name: after for name, (_, after) in MODULES.items()}
    assert "! " not in printed
    assert codemod(service, "--check").stdout == ""


def test_every_name_that_teams_could_import_has_a_place(service: Path) -> None:
    cases = {
        old: (
            "from {} import {}\n".format(*old.rsplit(".", 1)),
            f"from bulwark import {new}"
            + (f" as {old.rsplit('.', 1)[1]}" if not old.endswith(new) else "")
            + "\n",
        )
        for old, new in PUBLIC.items()
    }
    found, _ = changed(service, cases)
    assert found == {name: after for name, (_, after) in cases.items()}


def test_what_is_behind_the_facade_is_rewritten_and_listed(service: Path) -> None:
    found, printed = changed(service, BEHIND)
    assert found == {name: after for name, (_, after) in BEHIND.items()}
    again = codemod(service, "--check")
    assert again.returncode == 1
    assert "may move again" in printed
    lines = again.stdout.splitlines()
    assert lines
    assert all("! " in line for line in lines)
    assert codemod(service, "--force").stdout == again.stdout


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("from bulwark.environment import one_of\n", "Choices"),
        ("from bulwark.access import *\n", "name what you import"),
        ("from bulwark.access import nothing\n", "not in this release"),
        ("from bulwark.access import (\n", "can't be read"),
        ("import bulwark.database as d\n\nx: 'd.Model'\n", "quoted annotation"),
    ],
)
def test_what_only_a_person_can_decide_is_left_and_listed(
    service: Path, source: str, advice: str
) -> None:
    write(service / "app/views.py", source)
    commit(service)
    done = codemod(service)
    assert done.returncode == 1
    assert (service / "app/views.py").read_text() == source
    assert "app/views.py:1: ! " in done.stdout or "app/views.py:3: ! " in done.stdout
    assert advice in done.stdout


def test_templates_follow_renamed_macros_blocks_and_files(service: Path) -> None:
    for name, (before, _) in PAGES.items():
        write(service / "app/templates" / name, before)
    write(service / "app/templates/bulwark/letter.html", "<p>Ours.</p>\n")
    commit(service)
    assert codemod(service).returncode == 0
    for name, (_, after) in PAGES.items():
        assert (service / "app/templates" / name).read_text() == after, name
    moved = service / "app/templates/bulwark/message.html"
    assert moved.read_text() == "<p>Ours.</p>\n"
    assert not moved.with_name("letter.html").exists()
    assert codemod(service, "--check").stdout == ""


def test_an_override_of_nothing_is_listed(service: Path) -> None:
    write(service / "app/templates/bulwark/never.html", "")
    page = "app/templates/bulwark/never.html:1: ! overrides a template"
    assert page in codemod(service, "--check").stdout


def test_a_check_changes_nothing_and_names_each_line(service: Path) -> None:
    write(service / "app/views.py", "\n\nfrom bulwark.access import public\n")
    commit(service)
    done = codemod(service, "--check")
    assert done.returncode == 1
    line = "app/views.py:3: bulwark.access.public → from bulwark import public\n"
    assert done.stdout == line
    assert "bin/codemod makes these changes" in done.stderr
    assert not git(service, "status", "--porcelain")


def test_unsaved_work_is_refused(service: Path) -> None:
    write(service / "app/views.py", "from bulwark.access import public\n")
    write(service / "bulwark/update.py", "# an update that is not committed yet\n")
    done = codemod(service)
    assert done.returncode == 2
    assert "app/views.py" in done.stderr
    assert "bulwark.access" in (service / "app/views.py").read_text()
    assert codemod(service, "--force").returncode == 0
    assert (service / "app/views.py").read_text() == "from bulwark import public\n"
    git(service, "add", "app")
    git(service, "commit", "-qm", "Ours")
    assert codemod(service).returncode == 0


def test_only_the_teams_files_are_changed(service: Path) -> None:
    old = "from bulwark.access import public\n"
    for path in ("bulwark/newer.py", "tests/bulwark/test_newer.py", "scripts/ours.py"):
        write(service / path, old)
    (service / "app/base").symlink_to("../bulwark")
    (service / "app/linked.py").symlink_to("../scripts/ours.py")
    commit(service)
    assert codemod(service).returncode == 0
    assert not git(service, "status", "--porcelain")


def test_a_service_with_nothing_to_change_needs_no_network(service: Path) -> None:
    write(service / "app/views.py", "from bulwark import public, db\n")
    assert codemod(service, "--check", UV="/bin/false").returncode == 0


def test_without_libcst_it_explains_how_to_install_it(service: Path) -> None:
    write(service / "app/views.py", "from bulwark.access import public\n")
    commit(service)
    done = codemod(service, UV="/bin/false")
    assert done.returncode == 2
    assert "libcst" in done.stderr


def test_the_table_leads_to_what_this_release_has() -> None:
    script = """
import json, sys
from pathlib import Path
sys.path.insert(0, "bin")
from codemods import moves
from codemods.release import Release
release = Release(Path.cwd())
names = [name.rpartition(".") for name in moves.NAMES]
templates = [*moves.TEMPLATES.values(), *moves.MACROS, *moves.BLOCKS]
print(json.dumps([
    [new for new in moves.MODULES.values() if release.module(new) != new],
    ["".join(name) for name in names if not release.place(name[0], name[2])],
    [name for name in templates if not release.has_template(name)],
]))
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        cwd=TEMPLATE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[], [], []]
