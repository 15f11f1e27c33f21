"""Units: what they may do, what they count, and when timers run."""

import json
import re
import time
from collections.abc import Callable

from tests.conftest import ROOT
from tests.support.deployed import HOME, NAME, SETTINGS, Server, ServerVisitor
from tests.support.installed import (
    ASK_FOR_METRICS,
    EXPOSURE,
    show,
    wait_until_all_run_the_release,
    web,
)
from tests.support.machine import NEEDS_MACHINE
from tests.support.servers import eventually
from tests.support.visitor import ADDRESS

pytestmark = NEEDS_MACHINE


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
for number in range(12_000):  # journald would drop some without its settings
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
    assert len(names) == 12
    output = bare.attempt("systemd-analyze", "verify", *names).stderr
    assert NAME not in output
    for unit, most in EXPOSURE.items():
        name = web(bare) if unit == "web" else f"{NAME}@{unit}"
        output = bare.run("systemd-analyze", "security", f"{name}.service")
        (exposure,) = re.findall(r"Overall exposure level for \S+: (\S+)", output)
        record_property(unit, exposure)
        assert float(exposure) <= most, unit


def test_metrics_of_all_units_are_served_on_the_machine_alone(
    server: Server,
) -> None:
    server.ask("/readyz")
    asked = ("python3", "-c", ASK_FOR_METRICS)

    def scrape() -> str | None:
        """Return the metrics, unless a busy machine missed the deadline of a check."""
        text = server.attempt(*asked).stdout
        well = "database_up 1.0" in text and "limiter_up 1.0" in text
        return text if well else None

    metrics = eventually(scrape)
    assert re.search(r'http_requests_total{.*route="/readyz".*} [1-9]', metrics)
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
    for name, most in {
        "backup": 28 / 24 * day,
        "drill": 32 * day,
        "renew": day,
    }.items():
        away = timers[f"{NAME}@{name}.timer"]["next"] / 1e6 - time.time()
        assert 0 < away <= most
    server.run("systemctl", "start", f"{NAME}@backup")
    (backup,) = server.path(f"/var/backups/{NAME}").glob("*.backup")
    assert backup.stat().st_mode & 0o777 == 0o600
    server.run("systemctl", "start", f"{NAME}@drill")


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
