"""The service in containers: what compose.yaml says, and what Docker makes of it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from copier import run_copy

from tests.conftest import MISSING, ROOT, Make, run
from tests.support.chain import Shop, receivers
from tests.support.engine import Engine
from tests.support.pebble import AUTHORITY, PRODUCTION, STAGING, Pebble
from tests.support.servers import eventually
from tests.support.stack import ANSWERS, EDGE, NAME, NOBODY, SERVICE, Stack, visiting
from tests.support.visitor import DOMAIN

# What the team has added: a page that takes its time, and one that few may see.
VIEWS = """
import os
import time
from bulwark.web.rate_limits import limit


@blueprint.get("/test/slow/<int:seconds>")
@public
def slow(seconds: int) -> ResponseReturnValue:
    open("/tmp/slow", "w").close()
    time.sleep(seconds)
    return {"seconds": seconds}


@blueprint.get("/test/limited")
@public
@limit("5 per minute")
def limited() -> ResponseReturnValue:
    return {"pid": os.getpid()}
"""
AT_HAND = "import os, time\nwhile not os.path.exists('/tmp/slow'): time.sleep(0.1)"
NEW_VIEW = """

@blueprint.get("/test/new")
@public
def new() -> ResponseReturnValue:
    return {"new": True}
"""

# A rule of the team, true as soon as Prometheus has seen that all is well.
RULE = """
groups:
  - name: test
    rules:
      - alert: AllIsWell
        expr: web_up == 1 and database_up == 1 and limiter_up == 1
        labels: {severity: page}
        annotations: {summary: All is well}
"""

# --- The files ------------------------------------------------------------------------


def test_hadolint_and_shellcheck_find_nothing(make: Make) -> None:
    folder = make(**ANSWERS) / "deploy/docker"
    run("hadolint", "Dockerfile", cwd=folder)
    run("shellcheck", "-x", "-P", "SCRIPTDIR", "egress", "proxy", "repeat", cwd=folder)


def test_the_builder_gets_what_is_copied_and_nothing_else(make: Make) -> None:
    folder = make(**ANSWERS) / "deploy/docker"
    dockerfile = (folder / "Dockerfile").read_text()
    copied = re.findall(
        r"^COPY (?!--from)(?:--chmod=\d+ )?(.+) \S+$", dockerfile, re.MULTILINE
    )
    names = {name.split("/")[0] for line in copied for name in line.split()}
    ignored = (folder / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in names} == {x for x in ignored if x.startswith("!")}
    assert not names & {".", "bin", ".env", ".env.production", "instance"}


@pytest.mark.parametrize("proxy", ["nginx", "apache"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_compose_file_is_valid_and_says_nothing_twice_or_in_vain(
    make: Make, database: str, proxy: str
) -> None:
    service = make(**ANSWERS, database=database, proxy=proxy)
    content = yaml.safe_load((service / "compose.yaml").read_text())
    PyCompose.from_json(json.dumps(content))
    containers = content["services"]
    expected = {"web", "worker", "prepare", "backup", "redis", "proxy", "certbot"}
    expected |= {"egress", "drill"}
    watching = {"metrics", "prometheus", "alertmanager", "grafana"}
    assert {n for n in containers if "profiles" in containers[n]} == watching
    assert containers.keys() - {"database"} - watching == expected
    assert ("database" in containers) == (database == "postgresql")

    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "secrets": set()}
    for name, container in containers.items():
        assert container["read_only"], name
        assert container["cap_drop"] == ["ALL"], name
        assert "cap_add" not in container, name
        assert container["security_opt"] == ["no-new-privileges:true"], name
        assert container["init"], name
        assert container["logging"] == {"driver": "local"}, name
        assert {"cpu_shares", "mem_limit", "pids_limit"} <= container.keys(), name
        for port in container.get("ports", ()):
            assert name == "proxy" or port.startswith("127.0.0.1:"), name
        outside = {"proxy": {"edge"}, "certbot": {"edge"}, "worker": {"worker"}}
        outside["egress"] = {"worker", "outside"}
        outside |= {
            "metrics": {
                "edge",
                "metrics",
            },  # it looks at the certificate that is served
            "prometheus": {"metrics", "monitoring"},
            "alertmanager": {"monitoring", "alerts"},
            "grafana": {"monitoring", "alerts"},
        }
        assert set(container.get("networks", ())) == outside.get(name, set()), name
        assert name in outside or container["network_mode"] == "none", name
        volumes = (v for v in container.get("volumes", ()) if str(v)[0] not in "{.")
        used["volumes"] |= {volume.split(":")[0] for volume in volumes}
        for kind in ("networks", "secrets"):
            used[kind] |= set(container.get(kind, ()))
    for kind, names in used.items():
        assert content[kind].keys() == names

    dockerfile = (service / "deploy/docker/Dockerfile").read_text()
    followed = {c["build"]["target"] for c in containers.values() if "build" in c}
    followed |= {f"for-{proxy}" for proxy in ("nginx", "apache")}
    followed |= set(
        re.findall(r"^(?:FROM |COPY --from=)(\S+) ", dockerfile, re.MULTILINE)
    )
    assert followed >= set(re.findall(r"^FROM .* AS (\S+)$", dockerfile, re.MULTILINE))


def test_the_metrics_of_containers_reach_prometheus_alone(make: Make) -> None:
    service = make(**ANSWERS)
    content = yaml.safe_load((service / "compose.yaml").read_text())
    containers = content["services"]
    metrics = containers["metrics"]
    host, _, port = metrics["environment"]["APP_METRICS_BIND"].rpartition(":")
    (network,) = [n for n, c in metrics["networks"].items() if c and c.get("aliases")]
    assert metrics["networks"][network]["aliases"] == [host]
    assert content["networks"][network] == {"internal": True}
    there = {n for n, c in containers.items() if network in c.get("networks", ())}
    assert there == {"metrics", "prometheus"}
    targets = yaml.safe_load((service / "deploy/monitoring/targets.yml").read_text())
    assert targets == [{"targets": [f"{host}:{port}"]}]


def test_who_reaches_grafana_may_look_and_nothing_else(make: Make) -> None:
    content = yaml.safe_load((make(**ANSWERS) / "compose.yaml").read_text())
    grafana = content["services"]["grafana"]
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert grafana["ports"] == ["127.0.0.1:3000:3000"]


def test_each_package_that_is_installed_is_in_the_bill_of_materials(
    make: Make, tmp_path: Path
) -> None:
    service = make(**ANSWERS)
    uv = os.environ["UV"]
    run(uv, "lock", "--quiet", cwd=service)
    bill = tmp_path / "sbom.json"
    run("bin/sbom", bill, cwd=service)
    content = json.loads(bill.read_text())
    assert content["bomFormat"] == "CycloneDX"
    listed = {(c["name"], c["version"]) for c in content["components"]}
    exported = run(uv, "export", "-q", "--frozen", "--no-dev", cwd=service)
    locked = re.findall(r"^([\w.-]+)==(\S+)", exported, re.MULTILINE)
    assert len(locked) > 30
    assert set(locked) <= listed


def test_what_is_done_every_so_often_is_done_by_the_clock(tmp_path: Path) -> None:
    """A restart brings none forward, and a failure is not the end."""
    every = ROOT / "template/deploy/docker/repeat"
    slept = tmp_path / "slept"
    (tmp_path / "sleep").write_text(f"""#!/bin/sh
        echo $(($(date +%s) + $1)) >>"{slept}"
        [ $(wc -l <"{slept}") -lt 3 ]
    """)
    (tmp_path / "sleep").chmod(0o755)
    done = subprocess.run(
        [every, "12", "sh", "-c", f"echo done >>{tmp_path}/done; exit 1"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "done").read_text() == "done\n" * 2
    assert done.stderr.count("This failed") == 2
    for moment in map(int, slept.read_text().split()):
        assert moment % (12 * 3600) in {0, 1}, "noon and midnight, UTC"


def test_what_is_not_deployed_in_containers_has_no_files_for_it(make: Make) -> None:
    service = make(deploy=["systemd"])
    assert not (service / "compose.yaml").exists()
    assert not (service / "deploy/docker").exists()


# --- Run by Docker --------------------------------------------------------------------


@pytest.fixture(scope="module")
def able() -> None:
    if os.geteuid() or MISSING & {"debootstrap", "iproute2"}:
        pytest.skip("a machine with Docker needs root, debootstrap and iproute2")


@pytest.fixture(scope="module")
def engine(able: None, service: Path) -> Iterator[Engine]:
    """Return a machine with Docker, and all that the images are made of."""
    with Engine() as engine:
        engine.fill(service)
        Pebble(engine)
        yield engine


@pytest.fixture(scope="module")
def service(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_service(template, tmp_path_factory, database="postgresql")


def make_service(
    template: Path, factory: pytest.TempPathFactory, **answers: Any
) -> Path:
    folder = factory.mktemp("team") / "-".join(answers.values())
    answers = ANSWERS | answers
    run_copy(str(template), folder, answers, defaults=True, unsafe=True, quiet=True)
    with (folder / "app/views.py").open("a") as file:
        file.write(VIEWS)
    (folder / "app/hosts.txt").write_text(f"# ours\n{PRODUCTION}\n")
    for name in ("compose.yaml", "deploy/docker/Dockerfile"):
        path = folder / name  # the engine's images are not those of a registry
        path.write_text(re.sub(r"@sha256:[0-9a-f]{64}", "", path.read_text()))
    run(os.environ["UV"], "lock", "--quiet", cwd=folder)
    return folder


def as_cloned_under_umask_077(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)


@pytest.fixture(scope="module")
def stack(engine: Engine, service: Path) -> Stack:
    """Return the service with PostgreSQL and nginx, as it is after the first hour."""
    stack = Stack(engine, service, watched=True)
    stack.up()
    stack.begun = {
        name: stack.state(name)["State"] for name in stack.content["services"]
    }
    stack.compose("run", "--rm", "certbot", "issue")
    root = "ip netns exec authority curl -sk https://127.0.0.1:15000/roots/0"
    stack.authority = engine.run(*root.split())
    stack.compose("run", "--rm", "prepare", "flask", "accounts", "invite")
    return stack


def test_they_start_in_order_each_when_what_it_needs_is_healthy(stack: Stack) -> None:
    def healthy(name: str) -> datetime:
        checks = states[name]["Health"]["Log"]
        ends = [check["End"] for check in checks if check["ExitCode"] == 0]
        return min(map(datetime.fromisoformat, ends))

    states = stack.begun
    started = {n: datetime.fromisoformat(s["StartedAt"]) for n, s in states.items()}
    assert states["prepare"]["ExitCode"] == 0
    assert datetime.fromisoformat(states["prepare"]["FinishedAt"]) < started["web"]
    assert healthy("redis") < started["web"]
    assert healthy("proxy") < started["certbot"]
    for name, container in stack.content["services"].items():
        if name != "prepare":
            assert stack.state(name)["State"]["Running"], name
            assert stack.state(name)["RestartCount"] == 0, name
        for other, need in container.get("depends_on", {}).items():
            assert need["condition"] != "service_started", (name, other)


def test_the_first_certificate_comes_from_certbots_container(stack: Stack) -> None:
    answer = stack.ask("/healthz")
    assert (answer.status, answer.body) == (200, '{"status":"ok"}\n')
    http = stack.ask("/prices", port=80)
    assert (http.status, http.headers["Location"]) == (308, f"https://{DOMAIN}/prices")


def test_a_renewed_certificate_is_served_and_no_request_is_lost(stack: Stack) -> None:
    before = stack.ask("/healthz").serial
    with visiting(stack, "/static/app.css") as answers:
        renew = ("certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew")
        stack.compose("exec", "-T", "certbot", *renew)
    assert {answer.status for answer in answers} == {200}
    assert answers[0].serial == before
    assert stack.ask("/healthz").serial not in {before, None}


def test_what_the_proxy_refuses_is_not_loaded_and_the_hook_learns_why(
    stack: Stack,
) -> None:
    key = f"/etc/letsencrypt/live/{DOMAIN}/privkey.pem"
    move = "import os; os.rename('{}', '{}')"
    place = "import sys; sys.path[0] = 'deploy/certbot'"
    ask = f"{place}; from proxy import request_apply; request_apply()"
    before = stack.ask("/healthz").serial
    stack.python("certbot", move.format(key, "/etc/letsencrypt/kept"))
    try:
        with pytest.raises(AssertionError, match=r"(?s)privkey\.pem.*nginx rejected"):
            stack.python("certbot", ask)
    finally:
        stack.python("certbot", move.format("/etc/letsencrypt/kept", key))
    assert stack.ask("/healthz").serial == before
    stack.python("certbot", ask)


# --- What each may --------------------------------------------------------------------


def test_no_process_is_root_or_has_a_capability(stack: Stack) -> None:
    users = {"proxy": EDGE, "certbot": EDGE, "database": 999}
    users |= {"prometheus": NOBODY, "alertmanager": NOBODY}
    for name in running(stack):
        for process in stack.processes(name):
            facts = dict(
                line.split(":\t", 1)
                for line in (process / "status").read_text().splitlines()
                if ":\t" in line
            )
            assert set(facts["Uid"].split()) == {str(users.get(name, SERVICE))}, name
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(facts[kind], 16) == 0, (name, kind)
            assert facts["NoNewPrivs"] == "1", name
            assert facts["Seccomp"] == "2", name


def running(stack: Stack) -> list[str]:
    return [name for name in stack.content["services"] if name != "prepare"]


def test_nothing_can_be_written_but_what_the_compose_file_names(stack: Stack) -> None:
    for name in running(stack):
        container = stack.content["services"][name]
        named = {place.partition(":")[0] for place in container.get("tmpfs", ())}
        for volume in container.get("volumes", ()):
            if isinstance(volume, dict):
                if not volume.get("read_only"):
                    named.add(volume["target"])
            elif not volume.endswith(":ro"):
                named.add(volume.split(":")[1])
        mounts = (stack.processes(name)[0] / "mountinfo").read_text().splitlines()
        writable = {m.split()[4] for m in mounts if "rw" in m.split()[5].split(",")}
        kernels = {m for m in writable if m.startswith(("/dev", "/proc", "/sys"))}
        assert {m.replace("/var/run", "/run") for m in writable - kernels} == {
            place.replace("/var/run", "/run") for place in named
        }, name
    write = ("python3", "-c", "open('/srv/service/app/views.py', 'a')")
    with pytest.raises(AssertionError, match="Permission denied"):
        stack.compose("exec", "-T", "web", *write)
    with pytest.raises(AssertionError, match="Read-only file system"):
        stack.compose("exec", "-T", "--user", "0", "web", *write)


def test_limits_are_the_kernels(stack: Stack) -> None:
    pid = stack.engine.run("cat", "/run/docker.pid").strip()
    for name in running(stack):
        container = stack.content["services"][name]
        state = stack.state(name)["HostConfig"]
        group = f"docker/{stack.state(name)['Id']}"
        files = (
            f"/sys/fs/cgroup/*/{group}/memory.limit_in_bytes /sys/fs/cgroup/*/{group}"
        )
        read = f"cat {files}/pids.max /sys/fs/cgroup/cpu/{group}/cpu.shares"
        said = stack.engine.run("nsenter", "-t", pid, "-m", "sh", "-ec", read).split()
        megabytes = {"m": 1, "g": 1024}[container["mem_limit"][-1]]
        memory = int(container["mem_limit"][:-1]) * megabytes * 1024 * 1024
        assert list(map(int, said)) == [
            memory,
            container["pids_limit"],
            container["cpu_shares"],
        ], name
        assert state["LogConfig"]["Type"] == "local"


def test_the_web_and_what_holds_data_reach_no_network(stack: Stack) -> None:
    for name in ("web", "backup", "drill", "redis", "database"):
        devices = (stack.processes(name)[0] / "net/dev").read_text()
        assert re.findall(r"^ *(\w+):", devices, re.MULTILINE) == ["lo"], name
        listening = (stack.processes(name)[0] / "net/tcp").read_text()
        assert name == "database" or len(listening.splitlines()) == 1, name
    networks = stack.state("proxy")["NetworkSettings"]["Networks"]
    (address,) = [network["IPAddress"] for network in networks.values()]
    knock = f"import socket; socket.create_connection(('{address}', 80), 2)"
    stack.python("certbot", knock)
    with pytest.raises(AssertionError, match=r"TimeoutError|unreachable"):
        stack.python("worker", knock)


# Prints what comes of a connection through the proxy, and of one without it.
TRY = """
import http.client, os, socket, sys
from urllib.parse import urlsplit
proxy = urlsplit(os.environ["APP_OUTBOUND_PROXY"])
for host in sys.argv[1:]:
    connection = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=20)
    connection.set_tunnel(host, 443)
    try:
        connection.connect()
        print("reached")
    except OSError as error:
        print(error)
try:
    socket.create_connection(({address!r}, 443), 5)
    print("reached")
except OSError as error:
    print(type(error).__name__)
"""


def test_the_worker_reaches_only_allowed_hosts(stack: Stack) -> None:
    hosts = (PRODUCTION, STAGING, AUTHORITY)
    command = ("exec", "-T", "worker", "python3", "-c", TRY.format(address=AUTHORITY))
    by_name, other, by_address, direct = stack.compose(*command, *hosts).splitlines()
    assert by_name == "reached"
    assert "403" in other
    assert "403" in by_address
    assert direct in {"OSError", "TimeoutError"}  # there is no route


def test_a_container_sees_the_secrets_that_are_its_own(stack: Stack) -> None:
    for name in running(stack):
        secrets = set(stack.content["services"][name].get("secrets", ()))
        mounts = (stack.processes(name)[0] / "mountinfo").read_text()
        assert set(re.findall(r" /run/secrets/(\S+) ", mounts)) == secrets, name
        told = json.dumps(stack.state(name)["Config"])
        assert not [v for v in secret_values(stack) if v in told], name


def secret_values(stack: Stack) -> list[str]:
    values = [value for key, value in stack.settings.items() if "MAIL" not in key]
    assert len(values) >= 4
    return values


# --- What is in the images ------------------------------------------------------------

BUILDERS = re.compile("ar|as|cargo|cc|curl|gcc|git|go|ld|make|npm|pip3?|uvx?|wget")
PYTHONS = {"py3clean", "py3compile", "py3versions", "python3", "python3.13"}


def test_images_hold_no_tool_and_no_secret(stack: Stack) -> None:
    for name, container in stack.content["services"].items():
        if "build" not in container:
            continue
        files = [Path(f) for f in list_files(stack.engine, container["image"])]
        programs = {file.name for file in files if file.parent.name in {"bin", "sbin"}}
        assert "python3" in programs or name in {"egress", "proxy"}
        assert not [p for p in programs if BUILDERS.fullmatch(p)], name
        packages = {f.name for f in files if f.parent.name.endswith("-packages")}
        assert not packages & {"ensurepip", "pip", "setuptools", "uv"}, name
        if name in {"web", "worker", "prepare"}:
            system = (Path("usr/bin"), Path("usr/sbin"))
            found = {file.name for file in files if file.parent in system}
            assert found <= PYTHONS, "no shell, no apt, no perl"
        assert not [f for f in files if f.name.startswith(".env")], name
        assert not [f for f in files if f.is_relative_to("srv/service/tests")], name
        assert count_in(stack.engine, container["image"], [DOMAIN])
        assert not count_in(stack.engine, container["image"], secret_values(stack))


def count_in(engine: Engine, image: str, words: list[str]) -> int:
    """Count the lines of an image, history included, that hold one of the words."""
    engine.write("/root/words", "\n".join(words))
    search = "grep --text --count --fixed-strings --file=/root/words"
    return int(engine.attempt("sh", "-c", f"docker save {image} | {search}").stdout)


def list_files(engine: Engine, image: str) -> list[str]:
    container = engine.run("docker", "create", image, "python3").strip()
    try:
        return engine.run("sh", "-c", f"docker export {container} | tar t").splitlines()
    finally:
        engine.run("docker", "rm", container)


def test_python_in_the_image_is_whole(stack: Stack) -> None:
    """Its libraries are picked by hand."""
    program = """
import importlib, sys
for name in sys.stdlib_module_names - {"antigravity", "idlelib", "this"}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:  # another system's, or another package's
        continue
    except ImportError as error:
        assert ".so" not in str(error), error
"""
    stack.python("web", program)
    kept = "import ssl; assert ssl.create_default_context().get_ca_certs()"
    stack.python("worker", kept)


def test_the_proxys_pages_are_those_of_production(stack: Stack) -> None:
    """They were collected while the image was built, without production's settings."""
    stack.compose("exec", "-T", "web", "flask", "collect", "/tmp/public")
    program = """
import hashlib, os, pathlib
os.chdir("/tmp/public")
for path in filter(pathlib.Path.is_file, pathlib.Path().rglob("*")):
    print(hashlib.sha256(path.read_bytes()).hexdigest(), path)
"""
    by_service = stack.python("web", program).splitlines()
    find = "cd public && find * -type f -exec sha256sum {} +"
    by_proxy = stack.compose("exec", "-T", "proxy", "sh", "-c", find).splitlines()
    assert sorted(line.replace("  ", " ") for line in by_proxy) == sorted(by_service)


# --- Days -----------------------------------------------------------------------------


def test_requests_are_counted_for_all_processes_together(stack: Stack) -> None:
    answers = [stack.ask("/test/limited") for _ in range(7)]
    assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
    ask = ("redis-cli", "-s", "/run/redis/redis.sock", "--scan")
    assert "limited" in stack.compose("exec", "-T", "redis", *ask)


def test_the_health_check_sees_whether_the_web_answers(stack: Stack) -> None:
    check = ("exec", "-T", "web", "python", "deploy/docker/healthcheck")
    stack.compose(*check)
    socket = "/srv/service/run/web.sock"
    move = "import os; os.rename('{}', '{}')"
    stack.python("web", move.format(socket, f"{socket}.away"))
    try:
        with pytest.raises(AssertionError, match="No such file"):
            stack.compose(*check)
    finally:
        stack.python("web", move.format(f"{socket}.away", socket))


def test_a_stop_finishes_what_is_at_hand_and_an_absent_web_is_excused(
    stack: Stack,
) -> None:
    with visiting(stack, "/test/slow/5") as answers:
        stack.python("web", AT_HAND)
        stack.compose("stop", "web")
    assert answers[0].status == 200
    assert stack.state("web")["State"]["ExitCode"] == 0
    away = stack.ask("/")
    assert (away.status, away.headers["Retry-After"]) == (503, "5")
    stack.up()
    assert stack.ask("/").status == 200


def test_a_new_release_comes_with_one_command_and_is_excused_meanwhile(
    stack: Stack,
) -> None:
    before = stack.state("proxy")["Id"]
    assert stack.ask("/test/new").status == 404
    with stack.engine.path(f"{stack.folder}/app/views.py").open("a") as file:
        file.write(NEW_VIEW)
    with visiting(stack, "/healthz") as answers:
        stack.up()
    assert stack.ask("/test/new").status == 200
    assert stack.state("proxy")["Id"] == before
    assert {answer.status for answer in answers} == {200, 503}
    excused = [answer for answer in answers if answer.status == 503]
    assert {answer.headers["Retry-After"] for answer in excused} == {"5"}


def test_who_is_to_be_told_is_told_by_what_the_profile_starts(stack: Stack) -> None:
    shop = Shop()
    with shop.open(address=stack.engine.visitor) as port:
        hook = f"http://{stack.engine.visitor}:{port}"
        file = stack.engine.path(f"{stack.folder}/.env.receivers.yml")
        file.write_text(yaml.safe_dump({"receivers": receivers(hook)}))
        stack.engine.write(f"{stack.folder}/app/alerts/test.yml", RULE)
        stack.compose("restart", "prometheus", "alertmanager")
        heard = eventually(lambda: shop.find_alert("AllIsWell"))
    assert heard["to"] == "/page"
    assert heard["labels"]["service"] == NAME
    names = {alert["labels"]["alertname"] for alert in shop.alerts}
    assert names <= {"AllIsWell", "NewAdministrator"}, "the first one was invited"


@pytest.mark.parametrize("name", ["web", "worker"])
def test_what_still_starts_can_be_stopped(stack: Stack, name: str) -> None:
    """The first process of a container ignores signals that it has no handler for."""
    for command in ("stop", "start", "stop"):
        stack.compose(command, name)
    assert stack.state(name)["State"]["ExitCode"] in {0, 143}, "137 would be a kill"
    stack.up()


def test_everything_ends_in_time_and_what_matters_is_there_again(stack: Stack) -> None:
    serial, users = stack.ask("/").serial, stack.sql("select count(*) from users")
    assert users == "1"
    stack.compose("stop")
    for name in running(stack):
        code = stack.state(name)["State"]["ExitCode"]
        assert code in {0, 143}, f"{name} ended with {code}; 137 would be a kill"
    stack.compose("down")
    stack.up()
    assert stack.ask("/").serial == serial
    assert stack.sql("select count(*) from users") == users


def test_a_backup_brings_back_what_was_lost(stack: Stack) -> None:
    once = ("run", "--rm", "--no-deps", "backup", "flask")
    stack.compose(*once, "backup", "/var/backups")
    (backup,) = stack.engine.path(f"/var/backups/{stack.name}").glob("*.backup")
    assert (backup.stat().st_uid, backup.stat().st_mode & 0o777) == (SERVICE, 0o600)
    stack.sql("truncate users cascade")
    stack.compose("stop", "web", "worker", "metrics")
    stack.compose(*once, "restore", "--replace", f"/var/backups/{backup.name}")
    stack.up()
    assert stack.sql("select count(*) from users") == "1"


def test_apache_and_sqlite_do_as_well(
    engine: Engine, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    answers = {"project_name": "Other", "database": "sqlite", "proxy": "apache"}
    service = make_service(template, tmp_path_factory, **answers)
    # A service that changed its proxy later has no such folder.
    shutil.rmtree(service / "app/apache")
    as_cloned_under_umask_077(service)
    stack = Stack(engine, service, "ports: !override ['8080:80', '8443:443']")
    stack.up()
    http = stack.ask("/prices", port=8080)
    assert (http.status, http.headers["Location"]) == (308, f"https://{DOMAIN}/prices")
    live = f"/etc/letsencrypt/live/{DOMAIN}"
    make = f"""
        mkdir -p {live}
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 \\
            -subj /CN={DOMAIN} -addext subjectAltName=DNS:{DOMAIN} \\
            -keyout {live}/privkey.pem -out {live}/fullchain.pem
        deployed
        cat {live}/fullchain.pem
    """
    stack.authority = stack.compose("exec", "-T", "certbot", "sh", "-ec", make)
    with visiting(stack, "/healthz", port=8443) as seen:
        stack.compose("exec", "-T", "certbot", "deployed")
    assert {answer.body for answer in seen} == {'{"status":"ok"}\n'}
    stack.compose("down")


def test_buildah_and_podman_do_as_well(
    engine: Engine, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    service = make_service(template, tmp_path_factory, project_name="Podman")
    as_cloned_under_umask_077(service)
    stack = Stack(engine, service)
    engine.run("mkdir", "-p", "/var/lib/containers")
    engine.run("mount", "-t", "tmpfs", "podman", "/var/lib/containers")
    engine.run("sh", "-c", "docker save debian:trixie-slim | podman load")
    # A machine in namespaces may not ask for more than it has.
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
    build = ("buildah", "build", "--isolation=chroot", "--format=docker", *limits)
    engine.run(*build, "/srv/fill")
    file = f"--file={stack.folder}/deploy/docker/Dockerfile"
    engine.run(*build, "--target=web", "--tag=web", file, stack.folder)

    settings = f"{stack.folder}/.env.production:/run/secrets/settings:ro"
    start = (
        *("podman", "run", "--read-only", "--cap-drop=all", "--network=none"),
        *("--security-opt=no-new-privileges", "--cgroups=disabled", *limits),
        *("--tmpfs=/tmp", "--volume=data:/srv/service/instance"),
        *(f"--volume={settings}", "--env=ENV_FILE=/run/secrets/settings"),
    )
    engine.run(*start, "web", "flask", "prepare")
    socket = "--volume=run:/srv/service/run:U"
    engine.run(*start, "--detach", "--name=web", socket, "web")
    healthy = ("podman", "healthcheck", "run", "web")
    eventually(lambda: engine.attempt(*healthy).returncode == 0)
    pid = engine.run("podman", "inspect", "--format={{.State.Pid}}", "web").strip()
    told = engine.path(f"/proc/{pid}/status").read_text()
    assert re.search(rf"^Uid:\t{SERVICE}\t", told, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", told, re.MULTILINE)
    engine.run("podman", "stop", "web")
