"""deploy/systemd/reach: the hosts of the settings, whatever editor wrote those."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# root of a machine of its own: /etc with the settings, /run to note what was seen.
MACHINE = """
mount --bind "$1/etc" /etc
mount -t tmpfs tmpfs /run
shift
exec "$@"
"""
ISOLATED = ("unshare", "--mount", "--map-root-user")
WRITTEN = """
APP_MAIL_URL={}
APP_REDIS_URL=rediss://192.0.2.8
APP_UPLOADS_URL=https://key:se/cret@192.0.2.11:9000/files?region=us-east-1
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Lay out a service, its settings, and a systemctl that shows its arguments."""
    if subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets nobody have mounts of their own")
    (tmp_path / "service/deploy/systemd").mkdir(parents=True)
    for name in ("common.sh", "systemd/common.sh", "systemd/reach"):
        shutil.copy(ROOT / "template/deploy" / name, tmp_path / "service/deploy" / name)
    answers = 'slug = "shop"\ndomain = "192.0.2.1"\n'
    (tmp_path / "service/service.toml").write_text(answers)
    (tmp_path / "service/app").mkdir()
    (tmp_path / "etc/shop").mkdir(parents=True)
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.53\n")
    if (alternatives := Path("/etc/alternatives")).is_dir():  # Debian's awk
        shutil.copytree(alternatives, tmp_path / "etc/alternatives", symlinks=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bin/systemctl").chmod(0o755)
    return tmp_path


def reached(machine: Path) -> set[str]:
    """Return what the worker may reach from now on."""
    done = subprocess.run(
        [
            *(*ISOLATED, "sh", "-ec", MACHINE, "-", machine),
            machine / "service/deploy/systemd/reach",
        ],
        env={"PATH": f"{machine}/bin:/usr/sbin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("IPAddressAllow=")[-1].split())


ALWAYS = {"127.0.0.0/8", "::1/128", "192.0.2.53", "192.0.2.1"}


@pytest.mark.parametrize(
    "mail",
    [
        "smtp://user:password@192.0.2.7:587",
        '"smtps://192.0.2.7"',
        "SMTP://192.0.2.7",
    ],
)
@pytest.mark.parametrize("editor", ["plain", "mark", "CRLF", "indented"])
def test_settings_count_whatever_editor_wrote_them(
    machine: Path, mail: str, editor: str
) -> None:
    """Notepad puts a byte-order mark in front, and ends lines with CR LF."""
    text = WRITTEN.format(mail)
    text = {
        "plain": text,
        "mark": f"\ufeff{text}",
        "CRLF": text.replace("\n", "\r\n"),
        "indented": "".join(f"  {line} \n" for line in text.splitlines()),
    }[editor]
    (machine / "etc/shop/env.production").write_bytes(text.encode())
    assert reached(machine) == ALWAYS | {"192.0.2.7", "192.0.2.8", "192.0.2.11"}


def test_hosts_of_the_team_count_whatever_editor_wrote_them(machine: Path) -> None:
    (machine / "etc/shop/env.production").write_text("APP_LOG_LEVEL=INFO\n")
    (machine / "service/app/hosts.txt").write_bytes(
        "\ufeff192.0.2.9 # theirs\r\n192.0.2.10\r\n".encode()
    )
    assert reached(machine) == ALWAYS | {"192.0.2.9", "192.0.2.10"}
