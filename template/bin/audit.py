"""Looks up known vulnerabilities of pinned packages; bin/audit runs it.

PyPI returns 404 for a private package. But so may a mirror, a proxy or an outage, so a
second request checks whether PyPI has the package at all.
"""

import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

from packaging.specifiers import SpecifierSet

SERVICE = Path(__file__).resolve().parent.parent
CERTBOT = SERVICE / "deploy/certbot/requirements.txt"
PYPI = "https://pypi.org"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])? *== *([^\s;\\]+)", re.MULTILINE)
FINE, FOUND, FAILED = 0, 1, 2


class Package(NamedTuple):
    """A package in the version that is installed."""

    name: str
    version: str

    def __str__(self) -> str:
        """Return the name and version for display."""
        return f"{self.name} {self.version}"


class FailedError(Exception):
    """The look-up gave no reliable result."""


def main() -> int:
    """Look up all packages, print the result, return the exit code."""
    project = tomllib.loads((SERVICE / "pyproject.toml").read_text())
    ignored = project.get("tool", {}).get("uv", {}).get("audit", {}).get("ignore", [])
    pinned = dict(locked(tomllib.loads((SERVICE / "uv.lock").read_text())))
    for file in [*([CERTBOT] if CERTBOT.exists() else []), *map(Path, sys.argv[1:])]:
        for name, version in PINNED.findall(file.read_text()):
            pinned[Package(normalized(name), version)] = True
    try:
        answers = look_up(pinned, ignored)
        known = known_to_pypi([one for one in pinned if answers.get(one) is None])
    except FailedError as error:
        print(f"The look-up failed: {error}", file=sys.stderr)
        return FAILED
    return report(pinned, answers, known)


def report(
    pinned: dict[Package, bool],
    answers: dict[Package, list[str] | None],
    known: dict[Package, bool],
) -> int:
    """Print the result; return the exit code."""
    found = [
        f"{package}: {hole}" for package in answers for hole in answers[package] or ()
    ]
    withdrawn = [package for package in known if not known[package] and pinned[package]]
    private = [
        package for package in known if not known[package] and not pinned[package]
    ]
    unanswered = [package for package in known if known[package]]
    show("Private, so not looked up:", private)
    show("A known vulnerability:", found)
    show("No longer on PyPI, which removes malicious packages:", withdrawn)
    show(
        "The look-up failed: PyPI has these packages, but returned nothing for them:",
        unanswered,
    )
    looked_up = len(pinned) - len(known)
    print(f"{looked_up} of {len(pinned)} packages were looked up.")
    if found or withdrawn:
        return FOUND
    return FAILED if unanswered else FINE


def show(title: str, lines: Iterable[object]) -> None:
    """Print a list unless it is empty."""
    texts = sorted(map(str, lines))
    if texts:
        print(title, *(f"  {text}" for text in texts), sep="\n")


def locked(lock: dict[str, Any]) -> Iterator[tuple[Package, bool]]:
    """Yield the packages of a lock and whether each comes from PyPI itself."""
    for package in lock["package"]:
        source = package["source"]
        if "version" not in package or "." in (
            source.get("virtual"),
            source.get("editable"),
        ):
            continue  # the service itself
        index = source.get("registry", "")
        # A local version like 1.0+corp is a patched 1.0, with the same vulnerabilities.
        version = package["version"].partition("+")[0]
        of_pypi = index.startswith(PYPI) and "+" not in package["version"]
        yield Package(package["name"], version), of_pypi


def look_up(
    packages: Iterable[Package], ignored: list[str]
) -> dict[Package, list[str] | None]:
    """Return each package's vulnerabilities, or None where PyPI returns 404."""
    rounds: list[dict[str, Package]] = []  # pip-audit takes one version of a package
    for package in packages:
        free = next((turn for turn in rounds if package.name not in turn), None)
        if free is None:
            rounds.append(free := {})
        free[package.name] = package
    answers = {}
    for turn in rounds:
        for entry in pip_audit(turn.values(), ignored):
            package = turn[normalized(entry["name"])]
            answers[package] = None if "skip_reason" in entry else list(holes(entry))
    if not any(found is not None for found in answers.values()):
        raise FailedError(f"{PYPI} has no answer for any package.")
    return answers


def pip_audit(packages: Iterable[Package], ignored: list[str]) -> list[dict[str, Any]]:
    """Return pip-audit's result for each package."""
    with tempfile.TemporaryDirectory() as folder:  # an empty cache
        file = Path(folder, "requirements.txt")
        file.write_text("".join(f"{name}=={version}\n" for name, version in packages))
        command = [
            str(Path(sys.executable).parent / "pip-audit"),
            f"--requirement={file}",
        ]
        command += ["--no-deps", "--disable-pip", f"--cache-dir={folder}/cache"]
        command += ["--format=json", "--progress-spinner=off"]
        command += [f"--ignore-vuln={hole}" for hole in ignored]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        entries: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        raise FailedError("\n".join(done.stderr.splitlines()[-5:])) from None
    return entries


def holes(entry: dict[str, Any]) -> Iterator[str]:
    """Yield the vulnerabilities of a package, a line each."""
    for hole in entry["vulns"]:
        names = ", ".join([hole["id"], *hole["aliases"]])
        fixed = " or ".join(hole["fix_versions"]) or "no version yet"
        yield f"{names}, fixed in {fixed}"


def known_to_pypi(packages: Sequence[Package]) -> dict[Package, bool]:
    """Return whether PyPI has each package in this version."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(packages, pool.map(is_on_pypi, packages), strict=True))


def is_on_pypi(package: Package) -> bool:
    """Return whether PyPI has this version; raise FailedError if PyPI fails."""
    trust = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE"))
    url = f"{PYPI}/pypi/{package.name}/json"
    try:
        with urlopen(url, timeout=15, context=trust) as answer:  # noqa: S310
            released = json.load(answer)["releases"]
    except HTTPError as error:
        if error.code == 404:  # noqa: PLR2004
            return False
        raise FailedError(f"{url}: {error}") from None
    except (OSError, ValueError, KeyError) as error:
        raise FailedError(f"{url}: {error}") from None
    # uv.lock normalizes the versions of old releases.
    return any(SpecifierSet(f"=={package.version}").contains(one) for one in released)


def normalized(name: str) -> str:
    """Return a package's name as PyPI and uv.lock write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
