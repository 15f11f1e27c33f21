"""One machine with systemd: install, release, and what may happen to it on a day."""

import gzip
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.deployed import HOME, NAME, SETTINGS, Lender, Server, ServerVisitor
from tests.support.disks import BARE, installed
from tests.support.load import Load
from tests.support.machine import NEEDS_MACHINE
from tests.support.servers import PATIENCE, eventually
from tests.support.visitor import ADDRESS, DOMAIN

pytestmark = NEEDS_MACHINE

# What systemd-analyze finds at most; what is left is said in the units.
ASK_FOR_METRICS = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9464/metrics").read().decode())
"""
EXPOSURE = {
    "web": 0.3,
    "worker": 1.2,
    "metrics": 1.2,
    "backup": 0.3,
    "renew": 2.3,
    "reach": 2.4,
}


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory)


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def bare(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Return a server just after its first start, on each Debian."""
    suite = request.param
    with Server(installed(tmp_path_factory, suite, BARE[suite]["proxy"])) as server:
        yield server


class Shared(Server):
    """One on which each test leaves all as it was."""

    def booted(self) -> None:
        self.certify()
        eventually(lambda: self.ask("/readyz").status == 200)

    def reset(self) -> None:
        super().reset()
        for name in ("systemd", f"{self.proxy}"):
            folder = f"{HOME}/current/deploy/{name}"
            self.run("cp", "-R", f"{HOME}/repository/deploy/{name}/.", folder)


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lender[Shared]]:
    disk = installed(tmp_path_factory)
    with closing(Lender(lambda: Shared(disk))) as lender:
        yield lender


@pytest.fixture
def server(lender: Lender[Shared], request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a server that other tests have had, with https, that answers."""
    with lender.lend(request.session) as server:
        yield server


@pytest.fixture
def own(disk: Path) -> Iterator[Server]:
    """Return a server of the test's own, with https, that answers."""
    with Shared(disk) as server:
        yield server


def show(server: Server, unit: str, what: str) -> str:
    return server.run("systemctl", "show", "-P", what, unit).strip()


def web(server: Server) -> str:
    return f"{NAME}@{server.current}"


def state(server: Server) -> str:
    """Return what a release that failed must not have changed."""
    return server.run(
        "sh",
        "-c",
        f"""
        readlink {HOME}/current
        ls {HOME}/releases /run/{NAME}
        find /etc/systemd/system /etc/nginx -type f -exec sha256sum {{}} + |
            sed 's/{NAME}\\.[^/]*//' | sort
        systemctl list-unit-files --no-legend --state=enabled
        systemctl show -P MainPID {web(server)}
        """,
    )


# --- Install --------------------------------------------------------------------------


def test_a_bare_machine_serves_after_one_command_and_after_each_start(
    bare: Server,
) -> None:
    answer = bare.ask("/page", port=80)
    assert answer.status == 308
    assert answer.headers["Location"] == f"https://{DOMAIN}/page"
    bare.certify()
    assert bare.ask("/readyz").status == 200
    assert bare.ask("/static/app.css").status == 200
    assert show(bare, f"{NAME}@worker", "ActiveState") == "active"
    assert bare.install("--check").returncode == 0


def test_installing_again_changes_nothing(server: Server) -> None:
    workers = show(server, f"{NAME}@worker", "MainPID")
    before = state(server)
    done = server.install()
    assert done.returncode == 0, done.stderr
    assert state(server) == before
    assert show(server, f"{NAME}@worker", "MainPID") == workers
    assert server.ask("/readyz").status == 200


# What somebody breaks, and what the check names.
FAULTS = {
    f"chmod o+r {SETTINGS}": SETTINGS,
    f"chown {NAME} /etc/{NAME}": f"/etc/{NAME} is {NAME}",
    f"chmod 755 /var/lib/{NAME}": f"/var/lib/{NAME} is",
    f"rmdir /var/backups/{NAME}": f"/var/backups/{NAME} is not there",
    f"chmod 755 {HOME}/repository": f"{HOME}/repository is",
    f"chown {NAME} {HOME}/current/wsgi.py": "wsgi.py",
    f"chmod g+w {HOME}/current/app": "/app is",
    f"touch /var/lib/{NAME}/roots": "/roots is",
    f"chmod o+rw {HOME}/current/run/web.sock": "the socket is",
    f"usermod -aG www-data {NAME}": f"gpasswd -d {NAME} www-data",
    f"usermod -s /bin/sh {NAME}": f"{NAME} can log in",
}
MENDED = [f"chown root {HOME}/current/wsgi.py", f"chmod 755 {HOME}/current/app"]
MENDED += [f"rm /var/lib/{NAME}/roots", f"usermod -s /usr/sbin/nologin {NAME}"]
MENDED += [f"chmod 660 {HOME}/current/run/web.sock", f"gpasswd -d {NAME} www-data"]


def test_users_groups_and_modes_are_stated_and_checked(server: Server) -> None:
    for fault in FAULTS:
        server.run(*fault.split())
    done = server.install("--check")
    assert done.returncode == 1
    assert not [named for named in FAULTS.values() if named not in done.stderr]
    said = [line for line in done.stderr.splitlines() if line]
    assert len(said) == len(FAULTS), "and nothing else is wrong"
    # Folders and settings are install's to mend, the rest a person's to look at.
    for command in MENDED:
        server.run(*command.split())
    assert server.install().returncode == 0
    assert server.install("--check").returncode == 0


# What is not there, and what install says about it.
MISSING = {
    f"rm {SETTINGS} /root/.env.production": "no settings file /root/.env.production",
    f"rm {HOME}/repository/uv.lock": "There is no uv.lock",
    f"rm -r {HOME}/repository/.git": f"git clone REPOSITORY {HOME}/repository",
    "sed -i s/VERSION_ID=.*/VERSION_ID=11/ /etc/os-release": "needs Debian 12 or later",
    "mv /run/systemd/system /run/systemd/none": "systemd is not running here",
}


def test_install_says_what_is_missing(own: Server) -> None:
    command = f"{HOME}/repository/deploy/systemd/install"
    for fault, said in MISSING.items():
        own.run(*fault.split())
        done = own.attempt(command)
        assert done.returncode == 1, fault
        assert said in done.stderr
    own.run("mv", "/run/systemd/none", "/run/systemd/system")
    somebody = ("runuser", "-u", "nobody", "--")
    done = own.attempt(*somebody, f"{HOME}/current/deploy/systemd/install")
    assert done.returncode == 1
    assert "needs root: sudo" in done.stderr
    assert own.ask("/readyz").status == 200


def test_install_gets_the_packages_that_are_missing(own: Server) -> None:
    own.run("dpkg", "--purge", "--force-depends", "logrotate")
    own.run("sh", "-c", "rm -r /etc/apt/sources.list*")
    done = own.install()
    assert done.returncode == 1
    assert "apt-get could not install: logrotate." in done.stderr

    control = "Package: logrotate\nVersion: 9\nArchitecture: all\n"
    control += "Maintainer: Nobody <nobody@example.com>\nDescription: Nothing\n"
    own.write("/root/apt/new/DEBIAN/control", control)
    own.run("dpkg-deb", "--build", "/root/apt/new", "/root/apt/it.deb")
    package = own.path("/root/apt/it.deb").read_bytes()
    control += f"Filename: ./it.deb\nSize: {len(package)}\nSHA256: "
    own.write("/root/apt/Packages", control + sha256(package).hexdigest() + "\n")
    source = "deb [trusted=yes] file:/root/apt ./\n"
    own.write("/etc/apt/sources.list", source)
    done = own.install()
    assert done.returncode == 0, done.stderr
    assert "Packages: logrotate" in done.stdout


# --- What a unit can't do -------------------------------------------------------------

# Runs in the sandbox of the web; writes down what it can do that it should not.
PROBE = """
import json, mmap, os, socket, sys
from pathlib import Path

WRITE_AND_RUN = mmap.PROT_WRITE | mmap.PROT_EXEC
service, settings, other, evidence = map(Path, sys.argv[1:])
TRIED = {
    "write code": lambda: (service / "wsgi.py").open("a"),
    "write settings": lambda: settings.open("a"),
    "write elsewhere": lambda: Path("/opt/x").mkdir(),
    "read others' secrets": Path("/etc/shadow").read_text,
    "read homes": lambda: list(Path("/root").iterdir()),
    "see others": (other / "cmdline").read_bytes,
    "stop others": lambda: os.kill(int(other.name), 0),
    "reach the network": lambda: socket.create_connection(("127.0.0.1", 80), 2),
    "forge packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "become root": lambda: os.setuid(0),
    "run what it wrote": lambda: mmap.mmap(-1, 4096, prot=WRITE_AND_RUN),
    "make namespaces": lambda: os.unshare(os.CLONE_NEWUSER),
}
done = []
for name, act in TRIED.items():
    try:
        act()
    except OSError:
        continue
    done.append(name)
settings.read_text()
for number in range(12_000):  # journald would drop some, were it not told otherwise
    print("line", number)
evidence.write_text(json.dumps(done))
"""


def test_the_web_can_write_its_data_and_nothing_else(server: Server) -> None:
    evidence, other = f"/var/lib/{NAME}/done", show(server, "nginx", "MainPID")
    server.write("/usr/local/lib/probe.py", PROBE)
    probe = f"/usr/bin/python3 /usr/local/lib/probe.py {HOME}/current {SETTINGS}"
    folder = f"/run/systemd/system/{web(server)}.service.d"
    server.write(
        f"{folder}/probe.conf",
        f"[Service]\nExecStartPre={probe} /proc/{other} {evidence}\n",
    )
    server.run("systemctl", "daemon-reload")
    server.run("systemctl", "restart", web(server))
    server.run("rm", "-r", folder)
    server.run("systemctl", "daemon-reload")
    assert json.loads(server.path(evidence).read_text()) == []
    assert server.path(evidence).stat().st_mode & 0o777 == 0o600
    server.run("journalctl", "--sync")
    assert (
        len(server.journal("-u", web(server), "--grep=^line ").splitlines()) == 12_000
    )
    assert server.ask("/readyz").status == 200


def test_a_password_is_checked_in_the_sandbox(server: Server) -> None:
    response = ServerVisitor(server).sign_in(ADDRESS, "x" * 20)
    assert response.status == 200, response.body
    assert "csrf_token" in response.body, "the form is shown again"


def test_units_are_hardly_exposed(
    bare: Server, record_property: Callable[[str, object], None]
) -> None:
    files = sorted(bare.path("/etc/systemd/system").glob(f"{NAME}@*.*"))
    names = [
        path.name.replace("@.", f"@{bare.current}.") for path in files if path.is_file()
    ]
    assert len(names) == 10
    said = bare.attempt("systemd-analyze", "verify", *names).stderr
    assert NAME not in said
    for unit, most in EXPOSURE.items():
        name = web(bare) if unit == "web" else f"{NAME}@{unit}"
        said = bare.run("systemd-analyze", "security", f"{name}.service")
        (exposure,) = re.findall(r"Overall exposure level for \S+: (\S+)", said)
        record_property(unit, exposure)
        assert float(exposure) <= most, unit


def test_what_all_units_count_is_told_on_the_machine_and_nowhere_else(
    server: Server,
) -> None:
    server.ask("/readyz")
    asked = ("python3", "-c", ASK_FOR_METRICS)
    told = eventually(lambda: server.attempt(*asked).stdout)
    assert re.search(r'http_requests_total{.*route="/readyz".*} [1-9]', told)
    assert "database_up 1.0" in told
    assert "limiter_up 1.0" in told
    server.run("systemctl", "restart", f"{NAME}@worker", web(server))
    again = server.run(*asked)
    assert re.search(r'http_requests_total{.*route="/readyz".*} [1-9]', again)
    assert server.ask("/metrics").status == 404
    listening = server.run("ss", "-Hltn", "sport = 9464")
    assert listening.split()[3] == "127.0.0.1:9464"


def test_backups_and_renewals_run_by_the_clock(server: Server) -> None:
    listed = server.run("systemctl", "list-timers", "--output=json", f"{NAME}@*")
    timers = {timer["unit"]: timer for timer in json.loads(listed)}
    day = 24 * 60 * 60
    for name, most in {"backup": 28 / 24 * day, "renew": day}.items():
        away = timers[f"{NAME}@{name}.timer"]["next"] / 1e6 - time.time()
        assert 0 < away <= most
    server.run("systemctl", "start", f"{NAME}@backup")
    (backup,) = server.path(f"/var/backups/{NAME}").glob("*.backup")
    assert backup.stat().st_mode & 0o777 == 0o600


def test_what_was_lost_comes_back_with_the_commands_of_the_guide(
    own: Server,
) -> None:
    guide = (ROOT / "template/deploy/README.md").read_text()
    (commands,) = re.findall(
        r"```sh\n(deploy/systemd/flask backup .+?)```", guide, re.DOTALL
    )
    eventually(lambda: own.attempt("python3", "-c", ASK_FOR_METRICS).stdout)
    here = f"cd {HOME}/repository\n"
    flask = f"{here}deploy/systemd/flask"
    own.run("sh", "-c", f"{flask} accounts invite zoe@example.org")
    backup, *stop, restore, release = commands.replace("NAME", NAME).splitlines()
    own.run("sh", "-ec", here + backup)
    own.run("sh", "-c", f"{flask} accounts invite bob@example.org")
    own.run("sh", "-ec", here + "\n".join(stop))
    assert own.ask("/").status == 503, "a visitor starts nothing again"
    (written,) = own.path(f"/var/backups/{NAME}").glob("*.backup")
    restore = restore.replace(f"{NAME}-….backup", written.name)
    own.run("sh", "-ec", f"{here}{restore}\n{release}")
    people = own.run("sh", "-c", f"{flask} accounts list")
    assert "zoe@example.org" in people
    assert "bob@example.org" not in people
    assert own.ask("/readyz").status == 200
    wait_until_all_run_the_release(own)


def wait_until_all_run_the_release(server: Server) -> None:
    """Wait for the worker and the metrics to run the code that visitors are shown."""
    for part in ("worker", "metrics"):
        eventually(partial(runs_the_release, server, part))


def runs_the_release(server: Server, part: str) -> bool:
    pid = show(server, f"{NAME}@{part}", "MainPID")
    folder = server.attempt("readlink", f"/proc/{pid}/cwd").stdout.strip()
    return folder == f"{HOME}/releases/{server.current}"


# --- Release --------------------------------------------------------------------------


def test_a_release_and_the_way_back_drop_no_request(
    own: Server, tmp_path: Path
) -> None:
    first = own.current
    own.commit({"app/views.py": "# The second.\n"})
    slow = Load(own, 2, ("/test/slow/8",))
    with Load(own, 6) as load, slow:
        load.wait_for(500)
        done = own.release()
        assert done.returncode == 0, done.stderr
        second = own.current
        assert second != first
        wait_until_all_run_the_release(own)
        load.wait_for(500)
        done = own.release("--back")
        assert done.returncode == 0, done.stderr
        load.wait_for(500)
    assert load.dropped == slow.dropped == []
    assert load.answered >= 1500
    assert load.releases == {first, second}
    # Whatever was sent arrived, and did so once.
    kept = own.path(f"/var/lib/{NAME}/kept").read_text().split()
    assert sorted(kept) == sorted(load.posted)
    # The one that was left is gone for good, and no start brings it up.
    assert own.path(f"{HOME}/releases").joinpath(second).exists() is False
    with Server(own.keep(tmp_path / "trixie-again")) as again:
        assert again.ask("/test/release").body == f'{{"release":"{first}"}}\n'
        again.run("systemctl", "is-active", f"{NAME}@worker")
        done = again.release("--back")
        assert done.returncode == 1
        assert f"no release before {first}" in done.stderr


# What the team commits, and what the release says about it.
BROKEN = {
    "is no Python": ({"app/views.py": "def broken(:\n"}, "SyntaxError"),
    "has a migration that fails": (
        {
            "app/migrations/0002_broken.py": """\
from alembic import op

revision, down_revision, branch_labels, depends_on = "0002", "app0001", None, None


def upgrade() -> None:
    op.execute("SELECT * FROM nowhere")
"""
        },
        "no such table: nowhere",
    ),
    "does not start": (
        {"gunicorn.conf.py": 'raise RuntimeError("does not start")\n'},
        "It does not start.",
    ),
    "is never ready": (
        {
            "app/views.py": """
@blueprint.before_app_request
def refuse() -> ResponseReturnValue | None:
    return ("not ready", 503) if request.path == "/readyz" else None
"""
        },
        "/readyz did not return 200 within 3 seconds.",
    ),
    "fails once visitors come": (
        {
            "app/views.py": """
@blueprint.before_app_request
def refuse() -> ResponseReturnValue | None:
    if request.path == "/readyz" and Path("/srv/edge-test/current").samefile("."):
        return "not ready", 503
    return None
"""
        },
        "/readyz no longer returns 200.",
    ),
    "has a location that nginx refuses": (
        {"app/nginx/broken.conf": "locatin / {}\n"},
        'unknown directive "locatin"',
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_release_is_taken_back_that(server: Server, what: str) -> None:
    files, reason = BROKEN[what]
    server.commit(files)
    if what == "is never ready":
        script = server.path(f"{HOME}/current/deploy/systemd/release")
        script.write_text(script.read_text().replace("patience=60", "patience=3"))
    with Load(server, 2) as load:
        load.wait_for(20)
        before = state(server)
        done = server.release()
        assert done.returncode == 1
        assert reason in done.stdout + done.stderr
        assert f"{server.current} is still in use" in done.stderr
        assert state(server) == before
        load.wait_for(100)
    assert load.dropped == []
    assert server.run("systemctl", "--failed", "--no-legend") == ""


def test_settings_that_production_refuses_are_not_switched_to(server: Server) -> None:
    settings = server.path(SETTINGS)
    right = settings.read_text()
    settings.write_text(right.replace("APP_MAIL_URL", "APP_MAIL_URI"))
    before = state(server)
    done = server.release()
    settings.write_text(right)
    assert done.returncode == 1
    assert "did you mean APP_MAIL_URL?" in done.stderr
    assert state(server) == before
    assert server.ask("/readyz").status == 200


def test_of_two_releases_at_once_the_second_is_refused(server: Server) -> None:
    before = state(server)
    folders = server.path(f"{HOME}/releases")
    command = server.enter(f"{HOME}/current/deploy/systemd/release")
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as first:
        eventually(lambda: len(list(folders.iterdir())) == 2)
        done = server.release()
        assert done.returncode == 1
        holder = re.search(r"in progress: process (\d+) of root, since", done.stderr)
        assert holder
        # Somebody loses patience.
        server.run("kill", holder[1])
        _, said = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert "was not deployed" in said
    assert state(server) == before


def test_what_a_killed_release_left_is_gone_with_the_next(server: Server) -> None:
    before = state(server)
    left = f"{HOME}/releases/20991231-235959-00000000"
    server.run("cp", "-a", f"{HOME}/releases/{server.current}", left)
    server.run("rm", f"{left}/run")
    unit = f"{NAME}@{Path(left).name}"
    server.run(
        "systemctl", "enable", "-q", "--now", f"{unit}.socket", f"{unit}.service"
    )
    server.commit({"app/views.py": "def broken(:\n"})
    assert server.release().returncode == 1
    assert state(server) == before
    assert show(server, unit, "ActiveState") == "inactive"


def test_a_full_disk_stops_a_release_and_not_the_service(disk: Path) -> None:
    with Shared(disk, apart=True) as server:
        fill_and_release(server)


def fill_and_release(server: Server) -> None:
    server.commit({"app/views.py": "# More.\n"})
    before = state(server)
    room = shutil.disk_usage(server.folder)
    little = room.used + 20 * 1024 * 1024
    with Load(server, 2, ("/test/release", "/static/app.css")) as load:
        remount = ("mount", "-o", f"remount,size={little}", server.folder)
        subprocess.run(remount, check=True)
        done = server.release()
        load.wait_for(100)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert load.dropped == []
    assert state(server) == before
    assert shutil.disk_usage(server.folder).free > 10 * 1024 * 1024, "it took nothing"


# --- What may happen on a day ---------------------------------------------------------


def wait_for_next(server: Server, unit: str, before: str) -> None:
    """Return when a unit runs in a process other than before."""
    eventually(lambda: show(server, unit, "MainPID") not in ("0", before))
    eventually(lambda: show(server, unit, "ActiveState") == "active")


@pytest.mark.parametrize("which", ["main", "all"])
def test_gunicorn_killed_under_load_loses_only_what_it_was_at(
    server: Server, which: str
) -> None:
    unit, visitors = web(server), 6
    with Load(server, visitors) as load:
        load.wait_for(200)
        before = show(server, unit, "MainPID")
        kill = ("systemctl", "kill", "--signal=KILL", f"--kill-whom={which}")
        server.run(*kill, unit)
        wait_for_next(server, unit, before)
        lost = list(load.dropped)
        load.wait_for(400)
    assert len(lost) <= visitors
    # Not begun, or an answer of which the rest was not there any more.
    assert all(re.search(": (503|IncompleteRead.*)$", fault) for fault in lost)
    assert load.dropped == lost


def test_the_worker_reaches_only_what_it_is_told_to(server: Server) -> None:
    unit = f"{NAME}@worker"
    local = {"127.0.0.0/8", "::1/128"}

    def allowed() -> set[str]:
        return set(show(server, unit, "IPAddressAllow").split())

    assert set(show(server, unit, "IPAddressDeny").split()) == {"0.0.0.0/0", "::/0"}
    assert allowed() >= local
    with server.path(f"/etc/{NAME}/env.production").open("a") as settings:
        settings.write("APP_MAIL_URL='smtp://me:p/w#1@mail.example.com:587'\n")
        settings.write("APP_REDIS_URL=rediss://:x@[2001:db8::7]:6379/0\n")
    hosts = server.path("/etc/hosts")
    with hosts.open("a") as file:
        file.write("192.0.2.25 mail.example.com\n198.51.100.9 api.example.com\n")
    own = server.path(f"{HOME}/current/app/hosts.txt")
    own.write_text("# who is paid\napi.example.com\n203.0.113.0/24\n")
    server.run("systemctl", "start", f"{NAME}@reach")
    told = {"192.0.2.25/32", "2001:db8::7/128", "198.51.100.9/32", "203.0.113.0/24"}
    assert allowed() >= local | told
    assert not {"0.0.0.0/0", "::/0"} & allowed()
    assert show(server, f"{NAME}@reach.timer", "ActiveState") == "active"
    # What a name meant before stays: name servers take turns.
    hosts.write_text(hosts.read_text().replace("192.0.2.25", "192.0.2.26"))
    server.run("systemctl", "start", f"{NAME}@reach")
    assert allowed() >= local | told | {"192.0.2.26/32"}
    own.write_text("any\n")
    server.run("systemctl", "start", f"{NAME}@reach")
    assert {"0.0.0.0/0", "::/0"} <= allowed()


def test_a_killed_worker_comes_back(server: Server) -> None:
    unit = f"{NAME}@worker"
    before = show(server, unit, "MainPID")
    server.run("kill", "-KILL", before)
    wait_for_next(server, unit, before)


def test_gunicorn_replaces_a_process_of_its_own(server: Server) -> None:
    main = show(server, web(server), "MainPID")
    eventually(lambda: len(children(server, main)) > 1)
    child = children(server, main)[0]
    server.run("kill", "-KILL", child)
    eventually(lambda: child not in children(server, main))
    eventually(lambda: len(children(server, main)) > 1)
    assert server.ask("/readyz").status == 200


def children(server: Server, pid: str) -> list[str]:
    return server.path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_logs_that_are_turned_over_lose_no_line(server: Server) -> None:
    logs = server.path("/var/log/nginx")
    for log in logs.glob("access.log*"):
        log.unlink()
    server.run("systemctl", "kill", "--signal=USR1", "nginx")
    eventually((logs / "access.log").exists)
    with Load(server, 4, ("/static/app.css",)) as load:
        for name in ("access.log.1", "access.log.2.gz"):
            load.wait_for(200)
            server.run("logrotate", "--force", "/etc/logrotate.d/nginx")
            eventually((logs / name).exists)
        load.wait_for(200)

    def lines() -> int:
        texts = [(logs / name).read_bytes() for name in ("access.log", "access.log.1")]
        texts.append(gzip.decompress((logs / "access.log.2.gz").read_bytes()))
        return sum(text.count(b"/static/app.css") for text in texts)

    assert load.dropped == []
    eventually(lambda: lines() == load.answered, 10)
