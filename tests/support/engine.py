"""Docker on a machine of its own: its engine and compose, and all that a build fetches.
Podman is there too.

`with Engine() as engine:` has the images of REGISTRY as if they had been pulled, and a
mirror of Debian's packages. Nothing is fetched from outside.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import run
from tests.support.machine import MIRROR, TREES, Machine, tree
from tests.support.servers import PATIENCE

DOCKER = "docker.io docker-buildx docker-cli docker-compose buildah crun podman"
# What a Dockerfile can install, with all that it needs.
MIRRORED = """
apache2 ca-certificates nginx postgresql-17 postgresql-client-17 prometheus
prometheus-alertmanager python3 python3-venv redis-server squid
"""
GATEWAY = "http://172.17.0.1:8000"  # the machine, as containers see it
# Debian's image, which has neither documentation nor translations.
DEBIAN = f"""
rm -rf usr/share/doc/* usr/share/locale/* usr/share/man/* var/lib/apt/lists/* \\
  var/cache/apt/*
echo 'deb [trusted=yes] {GATEWAY} ./' >etc/apt/sources.list
"""
# Of the images that others make: who runs in them, what is whose, what is done first.
REGISTRY = {
    "postgres:17": r"""
FROM debian:trixie-slim
RUN groupadd --gid=999 postgres && useradd --gid=postgres --uid=999 postgres \
    && apt-get -q update && apt-get -qy install --no-install-recommends postgresql-17 \
    && rm -rf /var/lib/postgresql /usr/lib/*/libLLVM* \
    && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data \
    && install -d -o postgres -g postgres -m 3777 /var/run/postgresql
ENV LANG=C.UTF-8 PATH=/usr/lib/postgresql/17/bin:$PATH PGDATA=/var/lib/postgresql/data
COPY --chmod=755 <<'END' /usr/local/bin/docker-entrypoint.sh
#!/bin/bash
set -e
if [ ! -s $PGDATA/PG_VERSION ]; then
    export PGPASSWORD="${POSTGRES_PASSWORD:-$(cat "$POSTGRES_PASSWORD_FILE")}"
    initdb -U "$POSTGRES_USER" --pwfile=<(echo "$PGPASSWORD") $POSTGRES_INITDB_ARGS
    pg_ctl -w start -o "-c listen_addresses=''"
    createdb -U "$POSTGRES_USER" "$POSTGRES_USER"
    pg_ctl -w stop
    unset PGPASSWORD
fi
exec "$@"
END
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
""",
    "redis:8": r"""
FROM debian:trixie-slim
RUN groupadd --gid=999 redis && useradd --gid=redis --uid=999 redis \
    && apt-get -q update && apt-get -qy install --no-install-recommends redis-server \
    && install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
CMD ["redis-server"]
""",
    "prom/prometheus:v3.13.2": r"""
FROM debian:trixie-slim
RUN apt-get -q update && apt-get -qy install --no-install-recommends prometheus \
    && install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
""",
    "prom/alertmanager:v0.32.1": r"""
FROM debian:trixie-slim
RUN apt-get -q update \
    && apt-get -qy install --no-install-recommends prometheus-alertmanager \
    && ln -s prometheus-alertmanager /usr/bin/alertmanager \
    && install -d -o nobody -g nogroup /etc/alertmanager /alertmanager
USER nobody
WORKDIR /alertmanager
VOLUME /alertmanager
ENTRYPOINT ["/bin/alertmanager"]
""",
}

INSTALL = f"""
mount -t overlay engine -o "lowerdir=$1,upperdir=$2/disk,workdir=$2/work" "$2/root"
cd "$2/root"
printf '#!/bin/sh\\nexit 101\\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
chroot . apt-get -q install -y --no-install-recommends {DOCKER}
chroot . systemctl disable -q docker.service docker.socket containerd
rm usr/sbin/policy-rc.d
# As if nothing were installed, so that what packages need is fetched, too.
chroot . apt-get -q install -y --no-install-recommends --download-only \\
  -o Dir::State::status=/dev/null {" ".join(MIRRORED.split())}
mkdir -p srv/mirror
mv var/cache/apt/archives/*.deb srv/mirror
cd srv/mirror
for package in *.deb; do
  dpkg-deb --field "$package"
  echo "Filename: ./$package"
  echo "Size: $(stat -c %s "$package")"
  echo "SHA256: $(sha256sum "$package" | cut -d ' ' -f 1)"
  echo
done >Packages
"""
# An engine wants control groups for its limits. Where the newer kind has none to give,
# as the host uses the older one, it gets those. What it made there, it takes away.
ENGINE = """#!/bin/sh
mount -t tmpfs -o mode=711 docker /var/lib/docker
if ! grep -q memory /sys/fs/cgroup/cgroup.controllers; then
  mount -t tmpfs groups /sys/fs/cgroup
  for group in blkio cpu cpuacct cpuset devices freezer memory pids; do
    mkdir "/sys/fs/cgroup/$group"
    mount -t cgroup -o "$group" group "/sys/fs/cgroup/$group"
  done
fi
trap 'kill "$!"' TERM
dockerd &
wait || wait
find /sys/fs/cgroup/*/docker -depth -type d -exec rmdir {} +
"""
# uv looks into its cache alone, pip into the mirror, where only uv is.
OFFLINE = "UV_OFFLINE=1 PIP_NO_INDEX=1 PIP_TRUSTED_HOST=172.17.0.1 "
OFFLINE += f"PIP_FIND_LINKS={GATEWAY}/wheels/"
FILL = """
FROM debian:trixie-slim
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=bind,target=/filled \\
    cp -a /filled/cache/. /root/.cache/uv/
"""


def disk() -> Path:
    """Return what a machine needs to be an engine, made when there is none yet."""
    base = tree("trixie")
    parts = (base, MIRRORED, DEBIAN, REGISTRY, INSTALL, OFFLINE)
    state = hashlib.sha256(str(parts).encode()).hexdigest()
    done = TREES / f"engine-{state[:12]}"
    with (TREES / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            for old in TREES.glob("engine-*"):
                shutil.rmtree(old)
            new = TREES / "engine-new"
            for name in ("disk/var/lib/docker", "work", "root"):
                (new / name).mkdir(parents=True)
            sh = ("unshare", "--mount", "sh", "-ec")
            run(*sh, INSTALL, "install", base, new, cwd=new)
            run("debootstrap", "--variant=minbase", "trixie", "debian", MIRROR, cwd=new)
            run(*sh, DEBIAN, cwd=new / "debian")
            run("tar", "-C", "debian", "-cf", "disk/srv/debian.tar", ".", cwd=new)
            with Engine(new / "disk") as engine:
                engine.make_registry()
                shutil.copy(engine.path("/srv/registry.tar"), new / "disk/srv")
            for left in ("debian", "work", "root"):
                shutil.rmtree(new / left)
            (new / "disk/srv/debian.tar").unlink()
            new.rename(done)
    return done / "disk"


class Engine(Machine):
    """A machine on which `run("docker", …)` works."""

    def __init__(self, made: Path | None = None) -> None:
        """Boot a disk of `disk`."""
        super().__init__("trixie", made or disk())

    def __enter__(self) -> Self:
        super().__enter__()
        self.write("/usr/local/sbin/engine", ENGINE, 0o755)
        start = ("systemd-run", "-q", "-p", "PrivateMounts=yes", "-p", "KillMode=mixed")
        mirror = ("python3", "-m", "http.server", "--directory", "/srv/mirror")
        self.run(*start, "--unit=mirror", *mirror)
        self.run(*start, "--unit=engine", "engine")
        ready = f"docker info && curl -sf {GATEWAY}/Packages"
        end = time.monotonic() + PATIENCE
        while self.attempt("sh", "-ec", ready).returncode:
            assert time.monotonic() < end, self.journal("-u", "engine")
            time.sleep(0.1)
        if self.path("/srv/registry.tar").exists():
            self.run("docker", "load", "--quiet", "--input", "/srv/registry.tar")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end = "docker ps -aq | xargs -r docker rm --force; systemctl stop engine"
        self.attempt("sh", "-c", end)
        super().__exit__(kind, error, trace)

    def make_registry(self) -> None:
        """Make the images that the machine begins with."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        change = ("--change", f"ENV {path} {OFFLINE}", "--change", 'CMD ["bash"]')
        debian = "debian:trixie-slim"
        self.run("docker", "import", *change, "/srv/debian.tar", debian)
        for tag, dockerfile in REGISTRY.items():
            self.write(f"/srv/{tag}/Dockerfile", dockerfile)
            self.run("docker", "build", "--quiet", "--tag", tag, f"/srv/{tag}")
        self.run("docker", "save", "-o", "/srv/registry.tar", debian, *REGISTRY)

    def fill(self, service: Path) -> None:
        """Have at hand the packages from PyPI that the images of a service contain."""
        uv = os.environ["UV"]
        locked = run(uv, "export", "--quiet", "--locked", "--no-dev", cwd=service)
        (pinned,) = set(
            re.findall(
                r"uv==[\d.]+", (service / "deploy/docker/Dockerfile").read_text()
            )
        )
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "locked.txt").write_text(locked)
            certbot = service / "deploy/certbot/requirements.txt"
            for wanted in ("locked.txt", certbot):
                run(
                    *(
                        uv,
                        "pip",
                        "install",
                        "--quiet",
                        "--no-deps",
                        "--cache-dir=cache",
                    ),
                    *("--python-version=3.13", "--target=target", "-r", wanted),
                    cwd=folder,
                )
            shutil.rmtree(folder / "target")
            (folder / "Dockerfile").write_text(FILL)
            pip = (uv, "tool", "run", "--quiet", "pip", "download", "--quiet")
            run(*pip, "--no-deps", "--dest=wheels", pinned, cwd=folder)
            self.copy(folder, "/srv/fill")
        self.run("mv", "/srv/fill/wheels", "/srv/mirror/")
        self.run("docker", "build", "--quiet", "/srv/fill")
