"""bin/propose: the scheduled job that asks for the review of a release, once."""

import base64
import functools
import http.server
import json
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from tests.conftest import RELEASE, SETTINGS, commit, git, move, release
from tests.support.quick_copier import IN_PROCESSES

NEWS = "v9999.1.0"
BRANCH = "bulwark-9999.1.0"
FIX = "\n\n# a fix\n"
TOKEN = secrets.token_hex(20)
CI = {"CI", "GITHUB_ACTIONS", "GITLAB_CI"}
# GitHub's own command can't run here: this notes what it is asked for.
GH = """\
#!/bin/sh
printf '%s\\n' "$@" >"$NOTES/arguments"
cat >"$NOTES/text"
[ ! -e "$NOTES/forbidden" ] || { echo "may not create pull requests" >&2; exit 1; }
"""
# What GitLab does with push options, and where it leaves them.
RECEIVE = """\
#!/bin/sh
number=0
while [ "$number" -lt "$GIT_PUSH_OPTION_COUNT" ]; do
  eval "printf '%s\\n' \\"\\$GIT_PUSH_OPTION_$number\\""
  number=$((number + 1))
done >"$NOTES/options"
"""


class Place:
    """A service in a repository with an origin, and a template that has news for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.template, self.service = folder / "template", folder / "service"
        self.origin = folder / "origin.git"
        # Not of a CI that these tests may run in.
        own = {name: os.environ[name] for name in os.environ.keys() - CI}
        self.environment = own | {
            **IN_PROCESSES,
            "NOTES": str(self.notes),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        }

    def propose(
        self, folder: str = ".", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the job as a CI does: in a fresh clone, which is gone afterwards."""
        clone = self.folder / "clone"
        shutil.rmtree(clone, ignore_errors=True)
        git(self.folder, "clone", "-q", str(self.origin), "clone")
        (clone / folder / "uv.lock").write_text("as bin/setup has left it before\n")
        done = subprocess.run(
            [clone / folder / "bin/propose"],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    def push(self, **files: str) -> None:
        """Change scripts of the service; let the team push that."""
        for name, text in files.items():
            (self.service / f"bin/{name}").write_text(text)
        commit(self.service)
        git(self.service, "push", "-q", "origin", "HEAD:main")

    def note(self, name: str) -> str:
        return (self.notes / name).read_text()

    def proposed(self, path: str) -> str:
        return git(self.origin, "show", f"{BRANCH}:{path}")


@pytest.fixture(scope="module")
def original(small_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proposals") / "place"
    place = Place(folder)
    shutil.copytree(small_template, place.template, symlinks=True)
    options: dict[str, Any] = {"defaults": True, "unsafe": True, "quiet": True}
    run_copy(str(place.template), place.service, vcs_ref=RELEASE, **options)
    with (place.template / "template/bulwark/web/headers.py").open("a") as file:
        file.write(FIX)
    changes = place.template / "CHANGELOG.md"
    news = "## Unreleased\n\n### Security\n\n- Safer headers.\n"
    changes.write_text(changes.read_text().replace("## Unreleased\n", news, 1))
    release(place.template, NEWS)
    place.notes.mkdir()
    (folder / "bin").mkdir()
    (folder / "bin/gh").write_text(GH)
    (folder / "bin/gh").chmod(0o755)
    git(folder, "init", "-q", "--bare", "--initial-branch=main", "origin.git")
    return folder


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Place:
    """Return a place that a test may change. Its checks take no minutes, and pass."""
    place = Place(Path(shutil.copytree(original, tmp_path / "place", symlinks=True)))
    move(place.service, str(place.template))
    commit(place.service)
    git(place.service, "remote", "add", "origin", str(place.origin))
    place.push(setup="#!/bin/sh\n", ci="#!/bin/sh\n")
    return place


def test_a_pull_request_holds_the_update_and_lists_what_is_new(place: Place) -> None:
    done = place.propose(GITHUB_ACTIONS="true")
    assert done.returncode == 0, done.stderr
    assert place.proposed("bulwark/web/headers.py").endswith(FIX)
    subject = git(place.origin, "log", "-1", "--format=%s", BRANCH)
    assert subject == "Update the template to 9999.1.0\n"
    output = place.note("arguments").splitlines()
    assert output[:2] == ["pr", "create"]
    assert "Update the template to 9999.1.0" in output
    assert f"--head\n{BRANCH}\n" in place.note("arguments")
    assert place.note("text").startswith("`bin/setup` and `bin/ci` passed.\n")
    assert "## Security\n\n- Safer headers.\n" in place.note("text")


def test_gitlab_gets_the_same_as_a_merge_request(place: Place) -> None:
    git(place.origin, "config", "receive.advertisePushOptions", "true")
    hook = place.origin / "hooks/post-receive"
    hook.write_text(RECEIVE)
    hook.chmod(0o755)
    done = place.propose(
        GITLAB_CI="true",
        CI_DEFAULT_BRANCH="main",
        CI_PROJECT_URL=str(place.origin).removesuffix(".git"),
    )
    assert done.returncode == 0, done.stderr
    options = place.note("options").splitlines()
    assert "merge_request.create" in options
    assert "merge_request.target=main" in options
    assert "merge_request.title=Update the template to 9999.1.0" in options
    (text,) = (line for line in options if line.startswith("merge_request.description"))
    assert "\\n## Security\\n\\n- Safer headers.\\n" in text
    assert place.proposed("bulwark/web/headers.py").endswith(FIX)


def test_nothing_is_proposed_twice(place: Place) -> None:
    place.propose()
    (place.notes / "arguments").unlink()
    done = place.propose()
    assert (done.returncode, done.stdout) == (
        0,
        f"9999.1.0 is already proposed: {BRANCH}\n",
    )
    assert not (place.notes / "arguments").exists()


def test_a_service_that_is_current_is_left_alone(place: Place) -> None:
    git(place.template, "tag", "-d", NEWS)
    git(place.template, "reset", "-q", "--hard", RELEASE)
    done = place.propose()
    assert done.returncode == 0, done.stderr
    assert "is the newest release" in done.stdout
    assert git(place.origin, "branch").split() == ["*", "main"]


def test_conflicts_stand_first_and_nothing_is_tested(place: Place) -> None:
    with (place.service / "bulwark/web/headers.py").open("a") as file:
        file.write("# ours\n")
    place.push(ci="#!/bin/sh\ntouch $NOTES/tested\n")
    assert place.propose().returncode == 0
    assert "CONFLICTS: Update the template" in place.note("arguments")
    assert place.note("text").startswith("> **There are conflicts. Don't merge this")
    assert "- `bulwark/web/headers.py`" in place.note("text")
    assert "<<<<<<< before updating\n# ours\n" in place.proposed(
        "bulwark/web/headers.py"
    )
    assert not (place.notes / "tested").exists()


def test_packages_and_tests_see_no_token(place: Place) -> None:
    place.push(
        setup='#!/bin/sh\nenv >>"$NOTES/env"\n', ci='#!/bin/sh\nenv >>"$NOTES/env"\n'
    )
    tokens = dict.fromkeys(("GH_TOKEN", "TEMPLATE_TOKEN", "UPDATE_TOKEN"), TOKEN)
    done = place.propose(**tokens)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in place.note("env")


@pytest.mark.parametrize("check", ["setup", "ci"])
def test_a_failing_check_stands_first_with_its_output(place: Place, check: str) -> None:
    place.push(**{check: "#!/bin/sh\necho 'what is wrong'; exit 3\n"})
    assert place.propose().returncode == 0
    assert "FAILS: Update the template" in place.note("arguments")
    output = place.note("text")
    assert output.startswith(f"> **`bin/{check}` fails.**")
    assert "\nwhat is wrong\n" in output
    assert "- Safer headers." in output


def test_a_pull_request_that_was_refused_is_asked_for_again(place: Place) -> None:
    (place.notes / "forbidden").touch()
    done = place.propose()
    assert done.returncode == 1
    assert "may not create pull requests" in done.stderr
    assert git(place.origin, "branch").split() == ["*", "main"]
    (place.notes / "forbidden").unlink()
    assert place.propose().returncode == 0
    assert place.proposed("bulwark/web/headers.py").endswith(FIX)


@pytest.mark.parametrize("ci", ["GITHUB_ACTIONS", "GITLAB_CI"])
def test_a_job_without_token_is_referred_to_the_manual(place: Place, ci: str) -> None:
    done = place.propose(**{"CI": "true", ci: "true"})
    assert done.returncode == 1
    assert done.stderr.startswith("UPDATE_TOKEN is not set.")


def test_a_long_report_is_cut_but_stands_whole_in_the_commit(place: Place) -> None:
    changes = place.template / "CHANGELOG.md"
    news = "".join(f"- Entry {number} ü\n" for number in range(5000))
    changes.write_text(
        changes.read_text().replace("- Safer headers.\n", f"- Safer headers.\n{news}")
    )
    release(place.template, "v9999.1.1")
    assert place.propose().returncode == 0
    text = place.note("text")
    assert len(text) < 65_536
    assert text.startswith("`bin/setup` and `bin/ci` passed.\n\nThis is shortened")
    output = git(place.origin, "log", "-1", "--format=%B", "bulwark-9999.1.1")
    assert "\n## Security\n\n- Safer headers.\n" in output
    assert "\n- Entry 4999 ü\n" in output


def test_services_of_one_repository_get_a_proposal_each(place: Place) -> None:
    project = place.folder / "project"
    project.mkdir()
    (place.service / ".git").rename(project / ".git")
    place.service.rename(project / "billing")
    commit(project)
    git(project, "push", "-q", "origin", "HEAD:main")
    git(project, "push", "-q", "origin", f"HEAD:{BRANCH}")
    assert place.propose("billing").returncode == 0
    fixed = git(
        place.origin, "show", "billing-bulwark-9999.1.0:billing/bulwark/web/headers.py"
    )
    assert fixed.endswith(FIX)


def test_what_checks_leave_is_not_proposed_but_a_new_lock_is(place: Place) -> None:
    (place.service / "uv.lock").write_text("old\n")
    place.push(setup="#!/bin/sh\necho new >uv.lock; echo junk >junk\n")
    assert place.propose().returncode == 0
    assert place.proposed("uv.lock") == "new\n"
    assert "junk" not in git(place.origin, "ls-tree", "--name-only", BRANCH).split()


def test_an_older_proposal_is_named(place: Place) -> None:
    git(place.service, "push", "-q", "origin", "HEAD:bulwark-9999.0.5")
    place.propose()
    assert "This replaces bulwark-9999.0.5" in place.note("text")


def test_a_template_that_does_not_answer_fails_the_job(place: Place) -> None:
    move(place.service, str(place.folder / "gone"))
    place.push()
    done = place.propose()
    assert done.returncode == 1
    assert "check-update failed" in done.stderr
    assert git(place.origin, "branch").split() == ["*", "main"]


def test_hooks_of_a_machine_do_not_stop_a_proposal(place: Place) -> None:
    hooks = place.folder / "hooks"
    hooks.mkdir()
    for name in ("pre-commit", "prepare-commit-msg", "commit-msg", "post-checkout"):
        (hooks / name).write_text("#!/bin/sh\necho no >&2\nexit 1\n")
        (hooks / name).chmod(0o755)
    settings = place.folder / "gitconfig"
    common = Path(SETTINGS.name, "gitconfig").read_text()
    settings.write_text(f"{common}[core]\nhooksPath = {hooks}\n")
    done = place.propose(GIT_CONFIG_GLOBAL=str(settings))
    assert done.returncode == 0, done.stderr
    assert place.proposed("bulwark/web/headers.py").endswith(FIX)


def test_a_release_that_was_withdrawn_fails_the_job_with_advice(place: Place) -> None:
    answers = place.service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(RELEASE, "v9999.0.7"))
    place.push()
    done = place.propose()
    assert done.returncode == 1
    assert f"_commit: {RELEASE}" in done.stderr
    assert git(place.origin, "branch").split() == ["*", "main"]


# A machine that has a token for the same host, as a CI has one of the service.
OTHER_LOGIN = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "credential.helper",
    "GIT_CONFIG_VALUE_0": "!echo username=other; echo password=wrong; true",
}


class Private(http.server.SimpleHTTPRequestHandler):
    """Serves a repository to who knows the token."""

    def do_GET(self) -> None:
        login = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        if self.headers["Authorization"] == f"Basic {login}":
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def private(folder: Path) -> Iterator[str]:
    """Serve a folder's repositories to who knows the token."""
    handler = functools.partial(Private, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_private_template_is_read_with_a_token_that_stays_nowhere(
    place: Place,
) -> None:
    served = place.folder / "served"
    served.mkdir()
    git(served, "clone", "-q", "--mirror", str(place.template), "template.git")
    git(served / "template.git", "update-server-info")
    with private(served) as url:
        move(place.service, f"{url}/template.git")
        place.push()
        refused = place.propose(GIT_TERMINAL_PROMPT="0")
        assert refused.returncode == 1
        done = place.propose(
            GIT_TERMINAL_PROMPT="0", TEMPLATE_TOKEN=TOKEN, **OTHER_LOGIN
        )
    assert done.returncode == 0, done.stderr
    assert place.proposed("bulwark/web/headers.py").endswith(FIX)
    assert TOKEN not in done.stdout + done.stderr + json.dumps(place.note("text"))
    for folder in (place.folder, Path(SETTINGS.name)):
        for file in folder.rglob("*"):
            if file.is_file():
                assert TOKEN.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("start", ["git@example.com:", "ssh://git@example.com/"])
def test_a_private_template_that_is_named_by_ssh_is_read_by_https(
    place: Place, start: str
) -> None:
    """A job has no key; what git makes of the address is seen without a network."""
    move(place.service, f"{start}team/bulwark.git")
    place.push(copier=f"#!/bin/sh\ngit ls-remote --get-url {start}team/x.git\nexit 3\n")
    done = place.propose(TEMPLATE_TOKEN=TOKEN)
    assert done.stderr.startswith("https://example.com/team/x.git\n")
    assert place.propose().stderr.startswith(f"{start}team/x.git\n")
