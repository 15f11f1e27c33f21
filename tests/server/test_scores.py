"""Outside judges look at the deployed service, and what they find is asserted.

testssl.sh grades its TLS, sslyze holds it against Mozilla's guideline, MDN's
Observatory scores its headers, csp_evaluator and gixy look for gaps.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    TlsConfigurationEnum,
)

from tests.conftest import ROOT, run
from tests.support.deployed import HOME, LIVE, UNITS, Server
from tests.support.disks import installed
from tests.support.machine import NEEDS_MACHINE, TREES
from tests.support.visitor import DOMAIN

pytestmark = NEEDS_MACHINE

# A chain as Let's Encrypt's for a P-256 key: root and intermediate have P-384.
AUTHORITY = f"""
mkdir -p /root/authority {LIVE}
cd /root/authority
issue() {{ # name, curve, days, other options of openssl
  name=$1 curve=$2 days=$3
  shift 3
  openssl req -x509 -sha384 -nodes -newkey ec -pkeyopt "ec_paramgen_curve:$curve" \\
    -days "$days" -subj "/CN=$name" -keyout "$name.key" -out "$name.pem" \\
    -config empty.conf -addext "$@"
}}
printf '[req]\\ndistinguished_name = name\\n[name]\\n' >empty.conf
signs=keyUsage=critical,keyCertSign,cRLSign
issue root P-384 1000 basicConstraints=critical,CA:true -addext $signs
issue middle P-384 1000 basicConstraints=critical,CA:true,pathlen:0 -addext $signs \\
  -CA root.pem -CAkey root.key
issue {DOMAIN} P-256 90 basicConstraints=critical,CA:false \\
  -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=serverAuth \\
  -addext subjectAltName=DNS:{DOMAIN} -addext crlDistributionPoints=URI:http://crl/1 \\
  -CA middle.pem -CAkey middle.key
cat {DOMAIN}.pem middle.pem >{LIVE}/fullchain.pem
cp {DOMAIN}.key {LIVE}/privkey.pem
"""
TRUSTED = "/root/authority/root.pem"
CURL = (
    *("curl", "--silent", "--show-error", "--output", "/dev/null"),
    *("--cacert", TRUSTED, "--resolve", f"{DOMAIN}:443:127.0.0.1"),
)


class Setup(NamedTuple):
    """One way to deploy the service."""

    suite: str = "trixie"
    proxy: str = "nginx"
    tls: str = "intermediate"


class Site(NamedTuple):
    """The service, its server, and the authority that its visitors trust."""

    setup: Setup
    server: Server
    authority: Path


PROXIES = ("nginx", "apache")
USUAL = [Setup(proxy=proxy) for proxy in PROXIES]
MODERN = [Setup(proxy=proxy, tls="modern") for proxy in PROXIES]
OLDER = [Setup("bookworm", proxy) for proxy in PROXIES]


def on(setups: Sequence[Setup]) -> pytest.MarkDecorator:
    """Run a test on each; what shares a machine runs where that machine is."""
    cases = [
        pytest.param(setup, marks=pytest.mark.xdist_group("-".join(setup[:2])))
        for setup in setups
    ]
    return pytest.mark.parametrize(
        "site", cases, ids=map("-".join, setups), indirect=True
    )


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[ExitStack, dict[tuple[str, str], Server]]]:
    with ExitStack() as stack:
        yield stack, {}


@pytest.fixture
def site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    machines: tuple[ExitStack, dict[tuple[str, str], Server]],
) -> Site:
    """Return one of the setups; those that differ in TLS alone share a machine."""
    setup: Setup = request.param
    stack, booted = machines
    place = (setup.suite, setup.proxy)
    if place not in booted:
        disk = installed(tmp_path_factory, *place)
        booted[place] = stack.enter_context(Server(disk, parts=["web"]))
        booted[place].run("sh", "-ec", AUTHORITY)
    server = booted[place]
    answers = server.path(f"{HOME}/current/service.toml")
    answers.write_text(
        re.sub('(?m)^tls = ".*"$', f'tls = "{setup.tls}"', answers.read_text())
    )
    serve(server)
    return Site(setup, server, server.path(TRUSTED))


def serve(server: Server) -> None:
    """Bring the answers into the proxy, unless it has them."""
    answered = server.path(f"{HOME}/current/service.toml").read_bytes()
    served = server.path("/root/served")
    if not served.exists() or served.read_bytes() != answered:
        done = server.deploy(f"{server.proxy}/apply")
        assert done.returncode == 0, done.stderr
        # After a mere reload the old workers answer for a moment more.
        server.run("systemctl", "reset-failed")  # not too often for systemd
        server.run("systemctl", "restart", UNITS[server.proxy])
        served.write_bytes(answered)
    patient = ("--fail", "--retry", "5", "--retry-all-errors")
    server.run(*CURL, *patient, f"https://{DOMAIN}/healthz")


# Of testssl.sh, all that can find something: clients that it plays it only lists. It
# gives a grade to nobody of whom it has not asked all this.
ASKED = [
    *("--protocols", "--std", "--fs", "--server-preference", "--server-defaults"),
    *("--headers", "--vulnerable"),
]

# --- TLS ------------------------------------------------------------------------------


@pytest.mark.timeout(1800)  # a busy machine makes it look five times
@on(USUAL)
def test_testssl_grades_it_a_plus(site: Site) -> None:
    quick = ("--quiet", "--warnings=off", "--nodns=none", "--ip=127.0.0.1")
    command = ("testssl", *quick, *ASKED, "--add-ca", TRUSTED)
    # On a busy machine it disconnects before a ticket has come, and reports that one of
    # its own checks failed: retry.
    for attempt in range(5):
        report = f"/root/findings-{attempt}.json"
        site.server.attempt(*command, "--jsonfile", report, DOMAIN, patience=600)
        found = json.loads(site.server.path(report).read_text())
        if not any("check failed" in finding["finding"] for finding in found):
            break
    wrong = [
        f"{finding['id']} {finding['severity']}: {finding['finding']}"
        for finding in found
        if finding["severity"] not in ("OK", "INFO")
        # That the judge's own OpenSSL has no GOST.
        and finding["id"] != "engine_problem"
    ]
    assert not wrong, "\n".join(wrong)
    assert [f["finding"] for f in found if f["id"] == "overall_grade"] == ["A+"]


@on([*USUAL, *MODERN, *OLDER])
def test_sslyze_finds_what_mozilla_demands(site: Site, tmp_path: Path) -> None:
    # Guideline 6.0 is the 5.7 that sslyze brings, without DHE.
    demands = MozillaTlsConfiguration.get(TlsConfigurationEnum(site.setup.tls))
    ciphers = demands.ciphers.iana
    demands.ciphers.iana = {name for name in ciphers if not name.startswith("TLS_DHE_")}
    (tmp_path / "demands").write_text(demands.model_dump_json())
    report = run(
        *("sslyze", "--custom_tls_config=demands", "--json_out=seen"),
        f"--certinfo_ca_file={site.authority}",
        f"{DOMAIN}:443{{{site.server.address}}}",
        cwd=tmp_path,
    )
    assert "OK - Compliant" in report
    # No less than it demands either.
    seen = json.loads((tmp_path / "seen").read_text())["server_scan_results"][0]
    groups = seen["scan_result"]["elliptic_curves"]["result"]["supported_curves"]
    names = {group["name"] for group in groups}
    assert names == {"X25519", "secp256r1", "secp384r1"}
    accepted = seen["scan_result"]["tls_1_2_cipher_suites"]["result"]
    serves_older = bool(accepted["accepted_cipher_suites"])
    assert serves_older == (site.setup.tls == "intermediate")


@on([*USUAL, *MODERN])
def test_what_is_recorded_today_no_quantum_computer_opens(site: Site) -> None:
    """OpenSSL 3.5 offers what browsers of today offer."""
    where = ("-connect", "127.0.0.1:443", "-servername", DOMAIN)
    trusting = ("-CAfile", TRUSTED, "-verify_return_error")
    done = site.server.attempt("openssl", "s_client", "-brief", *where, *trusting)
    assert "Verification: OK" in done.stderr
    assert "group: X25519MLKEM768" in done.stderr


@on([setup for setup in [*USUAL, *MODERN] if setup.proxy == "nginx"])
def test_http_3_is_announced_and_answers(site: Site) -> None:
    remembering = ("--alt-svc", f"/root/announced-{site.setup.tls}")
    telling = ("--write-out", "%{http_code} %{http_version}")
    asking = (*CURL, *remembering, *telling, f"https://{DOMAIN}/healthz")
    assert [site.server.run(*asking) for _ in range(2)] == ["200 2", "200 3"]


# --- Headers, and the configuration ---------------------------------------------------


def judges() -> Path:
    """Return the folder with the judges that npm brings, fetched when there is none."""
    ours = ROOT / "tests/support/observatory"
    files = b"".join(path.read_bytes() for path in sorted(ours.iterdir()))
    done = TREES / f"observatory-{hashlib.sha256(files).hexdigest()[:12]}"
    TREES.mkdir(parents=True, exist_ok=True)
    with (TREES / "observatory.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            for old in TREES.glob("observatory-*"):
                shutil.rmtree(old)
            new = shutil.copytree(ours, TREES / "observatory-new")
            run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=new)
            # Of the scripts, the one that is missed: it downloads browsers' HSTS list.
            lists = new / "node_modules/@mdn/mdn-http-observatory/conf"
            (lists / "hsts-preload.json").write_text("{}")
            new.rename(done)
    return done


@on(USUAL)
@pytest.mark.parametrize(
    ("page", "score"),
    [
        # The most there is; 145 once browsers know the domain by heart (HSTS preload).
        ("/login", 140),
        # No cookie and no script, so no points for how they are guarded: 5 each.
        ("/", 130),
        # Said by the proxy itself.
        ("/static/app.css", 130),
    ],
)
def test_observatory_and_csp_evaluator_have_nothing_to_add(
    site: Site, page: str, score: int
) -> None:
    folder = judges()
    report = run(
        *("node", "judge.js", DOMAIN, site.server.address, page),
        cwd=folder,
        env=os.environ | {"NODE_EXTRA_CA_CERTS": str(site.authority)},
    )
    verdict = json.loads(report)
    reasons = "\n".join([*verdict["tests"], *verdict["findings"]])
    assert (verdict["score"], verdict["findings"]) == (score, []), reasons


@on([setup for setup in [*USUAL, *OLDER] if setup.proxy == "nginx"])
def test_gixy_finds_nothing(site: Site, tmp_path: Path) -> None:
    dump = tmp_path / "nginx.conf"
    dump.write_text(site.server.run("nginx", "-T"))
    # It can't know that apply has tried whether the installed OpenSSL takes the groups.
    command = ["gixy", "--skips", "ssl_ecdh_curve", "--format", "json", str(dump)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [
        f"{finding['file']}: {finding['summary']} {finding['reason']}"
        for finding in json.loads(done.stdout)
        # Debian's nginx.conf, which is the machine's; all others have a name here.
        if finding["file"] != str(dump)
        # There nginx has set the headers of the file, which would come twice.
        and "location = /errors/416.html" not in finding["config"]
    ]
    assert not found, "\n".join(found)
