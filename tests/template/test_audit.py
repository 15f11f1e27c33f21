"""bin/audit: known vulnerabilities, private packages, look-ups that fail."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.support.pypi import Pypi

OF_PYPI, OF_A_COMPANY = (
    "https://pypi.org/simple",
    "https://packages.corp.example/simple",
)
PACKAGES = {  # what a service has locked, and where from
    "flask": ("3.1.3", OF_PYPI),
    "holed": ("1.0", OF_PYPI),
    "patched": ("1.0+corp.2", OF_A_COMPANY),
    "corp-auth": ("1.0", OF_A_COMPANY),
}
LOCK = """
version = 1

[[package]]
name = "service"
version = "0.1.0"
source = { virtual = "." }
"""
NOWHERE = "http://[::1]:9"
IGNORED = '\n[tool.uv.audit]\nignore = ["PYSEC-2026-1"]\n'


class Audit(NamedTuple):
    """A service, and the PyPI that it asks."""

    service: Path
    pypi: Pypi

    def run(self, *files: str, online: bool = True) -> tuple[int, str, str]:
        """Return its exit code and what it prints."""
        with self.pypi.running() as environment:
            proxies = {} if online else {"HTTPS_PROXY": NOWHERE, "https_proxy": NOWHERE}
            done = subprocess.run(
                [self.service / "bin/audit", *files],
                cwd=self.service,
                env=environment | proxies,
                capture_output=True,
                text=True,
                check=False,
            )
        assert "Traceback" not in done.stderr
        return done.returncode, " ".join(done.stdout.split()), done.stderr


@pytest.fixture
def audit(ready: Path, tmp_path: Path) -> Audit:
    """Return a service with four packages, two of them private."""
    service = tmp_path / "a service"
    (service / "bin").mkdir(parents=True)
    for name in ("audit", "audit.py", "common.sh", "installers.sh"):
        shutil.copy(ROOT / "template/bin" / name, service / "bin")
    shutil.copy(ROOT / "template/pyproject.toml", service)
    (service / ".venv").symlink_to(ready / ".venv")
    text = LOCK
    for name, (version, index) in PACKAGES.items():
        text += f'\n[[package]]\nname = "{name}"\nversion = "{version}"\n'
        text += f'source = {{ registry = "{index}" }}\n'
    (service / "uv.lock").write_text(text)
    pypi = Pypi(tmp_path)
    pypi.has = {"flask": ["3.1.3"], "holed": ["1.0"], "patched": ["1.0"]}
    return Audit(service, pypi)


def test_a_private_package_is_named_and_the_rest_looked_up(audit: Audit) -> None:
    code, output, _ = audit.run()
    assert "Private, so not looked up: corp-auth 1.0 3 of 4 packages" in output
    assert code == 0


def test_a_vulnerability_fails_it_unless_the_team_accepts_it(audit: Audit) -> None:
    audit.pypi.vulnerable = {"holed", "patched"}
    code, output, _ = audit.run()
    assert "holed 1.0: PYSEC-2026-1, CVE-2026-0001, fixed in 2.0" in output
    assert "patched 1.0: PYSEC-2026-1" in output
    assert code == 1
    with (audit.service / "pyproject.toml").open("a") as project:
        project.write(IGNORED)
    assert audit.run()[0] == 0


def test_files_of_requirements_are_looked_up_too(audit: Audit) -> None:
    audit.pypi.vulnerable = {"old", "certbot"}
    audit.pypi.has |= {"old": ["0.9", "1.0"], "certbot": ["5.8.0"], "flask": ["3.1.3"]}
    (audit.service / "deploy/certbot").mkdir(parents=True)
    certbot = audit.service / "deploy/certbot/requirements.txt"
    certbot.write_text("certbot==5.8.0 \\\n    --hash=sha256:00\n")
    own = "# by hand\nOld==1.0\nold[extra]==0.9 ; python_version < '3.12' \\\n"
    (audit.service / "tools.txt").write_text(own)
    code, output, _ = audit.run("tools.txt")
    assert {"old 0.9:", "old 1.0:", "certbot 5.8.0:"} <= {
        f"{name} {version}"
        for name, version in zip(output.split(), output.split()[1:], strict=False)
    }
    assert code == 1


def test_a_package_that_pypi_has_withdrawn_fails_it(audit: Audit) -> None:
    audit.pypi.has["holed"] = ["0.9"]
    code, output, _ = audit.run()
    assert "No longer on PyPI, which removes malicious packages: holed 1.0" in output
    assert code == 1


def test_a_failed_look_up_is_no_private_package(audit: Audit) -> None:
    audit.pypi.withheld = {"holed", "patched"}
    code, output, _ = audit.run()
    assert "but returned nothing for them: holed 1.0 patched 1.0" in output
    assert "Private, so not looked up: corp-auth 1.0 " in output
    assert code == 2


@pytest.mark.parametrize("online", [True, False], ids=["404 for all", "no network"])
def test_without_any_answer_nothing_is_private_or_withdrawn(
    audit: Audit, online: bool
) -> None:
    audit.pypi.has = {}
    code, output, why = audit.run(online=online)
    assert "The look-up failed: " in why
    assert output == ""
    assert code == 2


@pytest.mark.parametrize(
    ("found", "where", "code"),
    [(1, {}, 1), (2, {}, 0), (2, {"CI": "true"}, 2), (0, {"CI": "true"}, 0)],
)
def test_only_a_machine_of_ones_own_may_pass_unaudited(
    tmp_path: Path, found: int, where: dict[str, str], code: int
) -> None:
    checks = [".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/lint-imports", "bin/test"]
    checks.append("bin/flask")
    for name in (*checks, "bin/sbom", "bin/audit"):
        check = tmp_path / name
        check.parent.mkdir(parents=True, exist_ok=True)
        check.write_text(f"#!/bin/sh\nexit {found if name == 'bin/audit' else 0}\n")
        check.chmod(0o755)
    for name in ("ci", "common.sh"):
        shutil.copy(ROOT / "template/bin" / name, tmp_path / "bin")
    environment = {"PATH": "/usr/bin:/bin", **where}
    assert subprocess.call([tmp_path / "bin/ci"], env=environment) == code
