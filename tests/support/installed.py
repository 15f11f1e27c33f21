"""A server with the service installed, which tests share, and its state."""

from functools import partial

from tests.support.deployed import HOME, NAME, SETTINGS, Server
from tests.support.servers import eventually

# What systemd-analyze finds at most; the units explain the rest.
ASK_FOR_METRICS = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9464/metrics").read().decode())
"""


EXPOSURE = {
    "web": 0.3,
    "worker": 1.2,
    "metrics": 1.2,
    "backup": 0.3,
    "drill": 0.3,
    "renew": 2.3,
    "reach": 2.4,
}


class Shared(Server):
    """A server on which each test leaves everything as it was."""

    restored = (SETTINGS, "/etc/hosts")

    def booted(self) -> None:
        self.certify()
        eventually(lambda: self.ask("/readyz").status == 200)
        self.settings = {name: self.path(name).read_text() for name in self.restored}

    def reset(self) -> None:
        super().reset()
        for name, text in self.settings.items():
            self.path(name).write_text(text)
        for name in ("systemd", f"{self.proxy}"):
            folder = f"{HOME}/current/deploy/{name}"
            self.run("cp", "-R", f"{HOME}/repository/deploy/{name}/.", folder)


def show(server: Server, unit: str, what: str) -> str:
    return server.run("systemctl", "show", "-P", what, unit).strip()


def web(server: Server) -> str:
    return f"{NAME}@{server.current}"


def state(server: Server) -> str:
    """Return what a release that failed must not have changed."""
    return server.run(
        "sh",
        "-c",
        f"""
        readlink {HOME}/current
        ls {HOME}/releases /run/{NAME}
        find /etc/systemd/system /etc/nginx -type f -exec sha256sum {{}} + |
            sed 's/{NAME}\\.[^/]*//' | sort
        systemctl list-unit-files --no-legend --state=enabled
        systemctl show -P MainPID {web(server)}
        """,
    )


def wait_until_all_run_the_release(server: Server) -> None:
    """Wait until the worker and the metrics run the code that serves visitors."""
    for part in ("worker", "metrics"):
        eventually(partial(runs_the_release, server, part))


def runs_the_release(server: Server, part: str) -> bool:
    pid = show(server, f"{NAME}@{part}", "MainPID")
    folder = server.attempt("readlink", f"/proc/{pid}/cwd").stdout.strip()
    return folder == f"{HOME}/releases/{server.current}"
