"""A server of its own: Debian with systemd as its first process, in namespaces.

`with Machine("trixie") as machine:` boots in seconds. Its disk is a layer over a tree
that is made once; its network is its own, so ports 80 and 443 are the real ones, and
tests reach it at `machine.address` over a cable. Only root can make one.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support.servers import PATIENCE, eventually

# The marks of tests that boot a machine.
NEEDS_MACHINE = [
    pytest.mark.needs("debootstrap", "iproute2"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine"),
]
TREES = Path(os.environ.get("BULWARK_TREES", "/var/cache/bulwark-tests"))
MIRROR = "http://deb.debian.org/debian"
PACKAGES = """
apache2 ca-certificates curl dbus fail2ban git iproute2 libnginx-mod-http-modsecurity
logrotate modsecurity-crs nftables nginx openssl pebble postgresql
procps python3 python3-systemd python3-venv redis-server rsync sudo syslog-ng-core
syslog-ng-mod-http systemd-sysv testssl.sh
"""
# Installed is not running: a machine starts what the deployment enables.
AT_REST = "apache2 fail2ban nftables nginx postgresql redis-server syslog-ng"

# The parts of a machine's network that tests can visit it from.
VISITORS = ("16/28", "32/27", "64/26", "128/25")

# Runs as the first process of the new namespaces, then becomes systemd.
BOOT = """
set -e
mount --make-rprivate /
mount -t overlay machine -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p before opt/uv var/cache/uv
mount --bind "$3" opt/uv
mount --bind "$4" var/cache/uv
pivot_root . before
umount -l before
hostname machine
ip link set lo up
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \\
    /lib/systemd/systemd --system --log-target=journal --show-status=no
"""


def tree(suite: str) -> Path:
    """Return a Debian with all that a server may want, made when there is none yet."""
    state = hashlib.sha256(f"{PACKAGES}{AT_REST}".encode()).hexdigest()[:12]
    done = TREES / f"{suite}-{state}"
    TREES.mkdir(parents=True, exist_ok=True)
    with (TREES / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            for old in TREES.glob(f"{suite}-*"):
                shutil.rmtree(old)
            new = TREES / f"{suite}-new"
            _call("debootstrap", "--variant=minbase", suite, new, MIRROR)
            packages = " ".join(PACKAGES.split())
            install = f"""
                export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
                apt-get -q install -y --no-install-recommends {packages}
                apt-get clean
                systemctl disable -q {AT_REST}
                systemctl mask -q getty@tty1 console-getty systemd-modules-load
                rm -f /usr/sbin/policy-rc.d
            """
            (new / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
            (new / "usr/sbin/policy-rc.d").chmod(0o755)
            _call("chroot", new, "sh", "-ec", install)
            new.rename(done)
    return done


@contextmanager
def network(hold: int) -> Iterator[None]:
    """Hold the host's network while the block lasts: LOCK_EX to change it.

    With LOCK_SH it stays as it is: Chromium drops what it is loading when a cable comes
    or goes.
    """
    TREES.mkdir(parents=True, exist_ok=True)
    with (TREES / "network.lock").open("w") as lock:
        fcntl.flock(lock, hold)
        yield


def _call(*command: str | Path) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr}"


def _is_in_memory(folder: Path) -> bool:
    kind = ("stat", "--file-system", "--format=%T", folder)
    return subprocess.check_output(kind, text=True).strip() == "tmpfs"


def _below(disk: Path) -> Path:
    """Return the link to the disk over which another one was written."""
    return disk.with_name(f"{disk.name}.below")


def _layers(disk: Path | None) -> Iterator[Path]:
    while disk:
        yield disk
        disk = _below(disk).resolve() if _below(disk).is_symlink() else None


class Machine:
    """A booted Debian: `run` runs a command in it, `path` shows one of its files."""

    def __init__(
        self, suite: str = "trixie", disk: Path | None = None, *, apart: bool = False
    ) -> None:
        """Name Debian's release, and a disk that another machine has kept.

        A machine that is `apart` writes to a file system of its own, which can be full.
        """
        self.disks = [*_layers(disk), tree(suite)]
        self.apart = apart
        self.process: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="bulwark-machine-"))
        # The kernel lays no layer over some file systems.
        self.apart = self.apart or not _is_in_memory(self.folder)
        if self.apart:
            _call("mount", "-t", "tmpfs", "machine", self.folder)
        try:
            self._boot()
            self.booted()
        except BaseException:
            self.end()
            raise
        return self

    def booted(self) -> None:
        """Do what a kind of machine needs before its block begins."""

    def absent(self) -> Sequence[str]:
        """Return which files of the disk are not there when it boots."""
        return ()

    def _boot(self) -> None:
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir()
        for name in self.absent():
            path = self.folder / "upper" / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        uv = Path(os.environ["UV"])
        cache = subprocess.check_output([uv, "cache", "dir"], text=True).strip()
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *("sh", "-c", 'echo $$ >"$0" && exec "$@"', self._own_group()),
                    # Whatever ends the tests ends the machine.
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("unshare", "--pid", "--mount", "--uts", "--ipc", "--net"),
                    *("--cgroup", "--fork", "--kill-child", "sh", "-c", BOOT, "boot"),
                    *(":".join(map(str, self.disks)), self.folder),
                    *(uv.resolve().parent, cache),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._first_process()
        self._plug_in()
        self.write("/usr/local/bin/uv", '#!/bin/sh\nexec /opt/uv/uv "$@"\n', 0o755)
        eventually(self._is_up)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Cut the power; what was written and not kept is gone."""
        if self.process:
            if self.pid:
                self._unplug()
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            else:
                self.process.kill()
            self.process.wait(PATIENCE)
            eventually(self._has_no_group)
        if self.apart:
            _call("umount", "--lazy", self.folder)
        shutil.rmtree(self.folder)

    def _has_no_group(self) -> bool:
        """Remove the control groups, each once its last process is gone."""
        for group, _, _ in os.walk(self.group, topdown=False):
            with suppress(OSError):
                Path(group).rmdir()
        return not self.group.exists()

    def keep(self, disk: Path) -> Path:
        """Shut down, and keep what was written for `Machine(…, disk)`."""
        assert self.process
        assert self.pid
        self._unplug()
        self.attempt("systemctl", "poweroff")
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # a power cut: nothing that is kept may mind
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)
        _call("mv", self.folder / "upper", disk)
        if len(self.disks) > 1:
            _below(disk).symlink_to(self.disks[0])
        return disk

    def _own_group(self) -> Path:
        """Make a control group: machines of one group would share that of each unit.

        Returns the file that takes the processes of the group.
        """
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        root = next(m.split()[1] for m in mounts if m.split()[2] == "cgroup2")
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        here = next(g.removeprefix("0::/") for g in groups if g.startswith("0::"))
        self.group = Path(root, here, self.folder.name)
        self.group.mkdir()
        return self.group / "cgroup.procs"

    def _first_process(self) -> int:
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            for pid in children.read_text().split():
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return int(pid)
            time.sleep(0.02)
        raise TimeoutError((self.folder / "log").read_text())

    def _is_up(self) -> bool:
        wait = ("systemctl", "is-system-running", "--wait")
        output = self.attempt(*wait).stdout.strip()
        assert output != "degraded", self.run("systemctl", "--failed")
        return output == "running"

    def _unplug(self) -> None:
        """Take the cable away, before the machine's end does so at any time."""
        with network(fcntl.LOCK_EX):
            cut = ("ip", "link", "delete", self.cable)
            subprocess.run(cut, check=False, capture_output=True)

    def _plug_in(self) -> None:
        """Lay a cable: the machine is 2 in its networks, the tests are all others."""
        assert self.pid
        network_4 = f"10.{self.pid // 250 % 250 + 1}.{self.pid % 250}"
        self.network_6 = f"fd00:{self.pid >> 16:x}:{self.pid & 0xFFFF:x}"
        self.address, self.visitor = f"{network_4}.2", f"{network_4}.1"
        self.address_6, visitor_6 = (f"{self.network_6}:ffff::{n}" for n in (2, 1))
        self.cable = f"bw{self.pid}"
        inside = ("nsenter", "-t", str(self.pid), "-n", "ip")
        ends = ("type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        with network(fcntl.LOCK_EX):
            _call("ip", "link", "add", self.cable, *ends)
            # The kernel would add the last one by itself, later, without the lock.
            _call("ip", "link", "set", self.cable, "addrgenmode", "none")
            for address in (f"{self.visitor}/24", f"{visitor_6}/64", "fe80::1/64"):
                _call("ip", "address", "add", address, "dev", self.cable, "nodad")
            _call("ip", "link", "set", self.cable, "up")
            # More visitors, without another change of the network.
            visitors = [f"{network_4}.{part}" for part in VISITORS]
            for part in (*visitors, f"{self.network_6}::/49"):
                _call("ip", "route", "add", "local", part, "dev", self.cable)
            for address in (f"{self.address}/24", f"{self.address_6}/64"):
                _call(*inside, "address", "add", address, "dev", "eth0", "nodad")
            _call(*inside, "link", "set", "eth0", "up")
            for gateway in (self.visitor, visitor_6):
                _call(*inside, "route", "add", "default", "via", gateway)

    def path(self, name: str) -> Path:
        """Return a file of the machine as the tests can open it."""
        return Path(f"/proc/{self.pid}/root") / name.lstrip("/")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Put a file on the machine."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text)
        self.path(name).chmod(mode)

    def copy(self, folder: Path, name: str) -> None:
        """Copy a folder of the tests onto the machine."""
        shutil.copytree(folder, self.path(name), symlinks=True)

    def enter(self, *command: str) -> list[str]:
        """Return the command line that runs a command as the machine's root."""
        settings = (
            "env",
            "-i",
            "--chdir=/root",
            "HOME=/root",
            "LANG=C.UTF-8",
            "UV_OFFLINE=1",
        )
        cache = "UV_CACHE_DIR=/var/cache/uv"
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        inside = ("nsenter", "-t", str(self.pid), "-a")
        return [*inside, *settings, cache, path, *command]

    def attempt(
        self, *command: str, patience: float = 900, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root, whatever comes of it."""
        return subprocess.run(
            self.enter(*command),
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
            stdin=subprocess.DEVNULL,
            **options,
        )

    def run(self, *command: str, **options: Any) -> str:
        """Run a command as root, fail with all of its output, return its stdout."""
        done = self.attempt(*command, **options)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def journal(self, *filters: str) -> str:
        """Return the journal of the machine's units."""
        return self.run("journalctl", "--no-pager", "-o", "cat", *filters)
