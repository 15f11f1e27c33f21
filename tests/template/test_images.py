""".ci/images: each image is pinned by the digest that its tag has."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}")
FILES = ("compose.yaml.jinja", "deploy/docker/Dockerfile", ".github/workflows/ci.yml")
# Prints a digest that depends on the tag, and on the day.
DOCKER = """#!/bin/sh
for image; do :; done
[ "$image" != "$UNKNOWN" ] || { echo "$image: not found" >&2; exit 1; }
echo "sha256:$(echo "$image $DAY" | sha256sum | cut -d' ' -f1)"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the command reads and writes, and a docker."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for name in (*FILES, ".gitlab-ci.yml"):
        copy = tmp_path / "template" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(DIGEST.sub("", (ROOT / "template" / name).read_text()))
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return tmp_path


def pin(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout}/bin:{os.environ['PATH']}"
    return subprocess.run(
        checkout / ".ci/images",
        env={"PATH": path, "UNKNOWN": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def images(checkout: Path) -> list[str]:
    text = "".join((checkout / "template" / name).read_text() for name in FILES)
    return re.findall(
        r"^ *(?:image: |ARG DEBIAN=)([\w./:-]+:[^\s{}]+)$", text, re.MULTILINE
    )


def test_each_image_is_pinned_and_a_tag_that_moved_gets_its_new_digest(
    checkout: Path,
) -> None:
    tags = images(checkout)
    assert {"postgres:17", "redis:8", "debian:trixie-slim"} <= set(tags)
    first = pin(checkout, DAY="1")
    assert first.returncode == 0, first.stderr
    pinned = images(checkout)
    assert [DIGEST.sub("", image) for image in pinned] == tags
    assert all(DIGEST.search(image) for image in pinned)
    assert pin(checkout, DAY="1").stdout == ""
    assert images(checkout) == pinned
    assert pin(checkout, DAY="2").returncode == 0
    assert not set(images(checkout)) & set(pinned)


def test_if_one_image_has_no_digest_no_file_changes(checkout: Path) -> None:
    before = images(checkout)
    failed = pin(checkout, DAY="1", UNKNOWN="redis:8")
    assert failed.returncode == 2
    assert "redis:8: not found" in failed.stderr
    assert "Nothing was changed" in failed.stderr
    assert images(checkout) == before
