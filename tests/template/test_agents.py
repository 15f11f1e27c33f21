"""AGENTS.md and the settings of editors: each names what there is."""

import json
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2] / "template"
AGENTS = (ROOT / "AGENTS.md").read_text()
CI = (ROOT / "bin/ci").read_text().splitlines()


def test_the_rules_are_short_enough_to_be_read() -> None:
    assert len(AGENTS.splitlines()) <= 60


def test_a_check_holds_each_rule() -> None:
    rows = re.findall(r"^\| [A-Z].* \| `([^`]+)` \|$", AGENTS, re.MULTILINE)
    assert len(rows) == AGENTS.count("\n| ") - 1
    for check in rows:
        if check.startswith("tests/"):
            assert "def test_" in (ROOT / check).read_text(), check
        else:
            assert any(line.split(" ||")[0] == check for line in CI) or any(
                line.startswith(f"{check} ") for line in CI
            ), check


def test_each_command_exists() -> None:
    for command in re.findall(r"`(bin/[a-z]+)", AGENTS):
        assert (ROOT / command).is_file(), command


def test_the_debugger_serves_as_bin_dev_does() -> None:
    launch = json.loads((ROOT / ".vscode/launch.json").read_text())
    (one,) = launch["configurations"]
    dev = (ROOT / "bin/dev").read_text()
    assert one["module"] == "flask"
    for file in ("instance/tls/localhost.pem", "instance/tls/localhost.key"):
        assert file in one["args"]
        assert file in dev
    assert one["env"]["APP_ENV"] == "development"


def test_hooks_are_checks_of_ci() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())[
        "repos"
    ]
    for hook in repository["hooks"]:
        tool, *arguments = hook["entry"].removeprefix(".venv/bin/").split()
        step = " ".join([tool, *arguments[:1]])
        assert any(line.startswith(step) for line in CI), step


def test_editors_suggest_the_same_extensions() -> None:
    suggested = json.loads((ROOT / ".vscode/extensions.json").read_text())
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    inside = container["customizations"]["vscode"]["extensions"]
    assert inside == suggested["recommendations"]
    assert container["postCreateCommand"] == "bin/setup"


def test_the_team_has_a_group_of_packages_of_its_own() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert groups["team"] == []
    assert {"include-group": "team"} in groups["dev"]
