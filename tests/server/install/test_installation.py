"""deploy/systemd/install: what it sets up, and what it requires."""

from hashlib import sha256

from tests.support.deployed import HOME, NAME, SETTINGS, Server
from tests.support.installed import show, state
from tests.support.machine import NEEDS_MACHINE
from tests.support.visitor import DOMAIN

pytestmark = NEEDS_MACHINE


def test_a_bare_machine_serves_after_one_command_and_after_each_start(
    bare: Server,
) -> None:
    answer = bare.ask("/page", port=80)
    assert answer.status == 308
    assert answer.headers["Location"] == f"https://{DOMAIN}/page"
    bare.certify()
    assert bare.ask("/readyz").status == 200
    assert bare.ask("/static/app.css").status == 200
    assert show(bare, f"{NAME}@worker", "ActiveState") == "active"
    assert bare.install("--check").returncode == 0


def test_installing_again_changes_nothing(server: Server) -> None:
    workers = show(server, f"{NAME}@worker", "MainPID")
    before = state(server)
    done = server.install()
    assert done.returncode == 0, done.stderr
    assert state(server) == before
    assert show(server, f"{NAME}@worker", "MainPID") == workers
    assert server.ask("/readyz").status == 200


# What somebody breaks, and what the check names.
FAULTS = {
    f"chmod o+r {SETTINGS}": SETTINGS,
    f"chown {NAME} /etc/{NAME}": f"/etc/{NAME} is {NAME}",
    f"chmod 755 /var/lib/{NAME}": f"/var/lib/{NAME} is",
    f"rmdir /var/backups/{NAME}": f"/var/backups/{NAME} is not there",
    f"chmod 755 {HOME}/repository": f"{HOME}/repository is",
    f"chown {NAME} {HOME}/current/wsgi.py": "wsgi.py",
    f"chmod g+w {HOME}/current/app": "/app is",
    f"touch /var/lib/{NAME}/roots": "/roots is",
    f"chmod o+rw {HOME}/current/run/web.sock": "the socket is",
    f"usermod -aG www-data {NAME}": f"gpasswd -d {NAME} www-data",
    f"usermod -s /bin/sh {NAME}": f"{NAME} can log in",
}


MENDED = [f"chown root {HOME}/current/wsgi.py", f"chmod 755 {HOME}/current/app"]


MENDED += [f"rm /var/lib/{NAME}/roots", f"usermod -s /usr/sbin/nologin {NAME}"]


MENDED += [f"chmod 660 {HOME}/current/run/web.sock", f"gpasswd -d {NAME} www-data"]


def test_users_groups_and_modes_are_stated_and_checked(server: Server) -> None:
    for fault in FAULTS:
        server.run(*fault.split())
    done = server.install("--check")
    assert done.returncode == 1
    assert not [named for named in FAULTS.values() if named not in done.stderr]
    messages = [line for line in done.stderr.splitlines() if line]
    assert len(messages) == len(FAULTS), "and nothing else is wrong"
    # Folders and settings are install's to mend, the rest a person's to look at.
    for command in MENDED:
        server.run(*command.split())
    assert server.install().returncode == 0
    assert server.install("--check").returncode == 0


# What is not there, and install's message about it.
MISSING = {
    f"rm {SETTINGS} /root/.env.production": "no settings file /root/.env.production",
    f"rm {HOME}/repository/uv.lock": "There is no uv.lock",
    f"rm -r {HOME}/repository/.git": f"git clone REPOSITORY {HOME}/repository",
    "sed -i s/VERSION_ID=.*/VERSION_ID=11/ /etc/os-release": "needs Debian 12 or later",
    "mv /run/systemd/system /run/systemd/none": "systemd is not running here",
}


def test_install_names_what_is_missing(own: Server) -> None:
    command = f"{HOME}/repository/deploy/systemd/install"
    for fault, messages in MISSING.items():
        own.run(*fault.split())
        done = own.attempt(command)
        assert done.returncode == 1, fault
        assert messages in done.stderr
    own.run("mv", "/run/systemd/none", "/run/systemd/system")
    somebody = ("runuser", "-u", "nobody", "--")
    done = own.attempt(*somebody, f"{HOME}/current/deploy/systemd/install")
    assert done.returncode == 1
    assert "needs root: sudo" in done.stderr
    assert own.ask("/readyz").status == 200


def test_install_gets_the_packages_that_are_missing(own: Server) -> None:
    own.run("dpkg", "--purge", "--force-depends", "logrotate")
    own.run("sh", "-c", "rm -r /etc/apt/sources.list*")
    done = own.install()
    assert done.returncode == 1
    assert "apt-get could not install: logrotate." in done.stderr

    control = "Package: logrotate\nVersion: 9\nArchitecture: all\n"
    control += "Maintainer: Nobody <nobody@example.com>\nDescription: Nothing\n"
    own.write("/root/apt/new/DEBIAN/control", control)
    own.run("dpkg-deb", "--build", "/root/apt/new", "/root/apt/it.deb")
    package = own.path("/root/apt/it.deb").read_bytes()
    control += f"Filename: ./it.deb\nSize: {len(package)}\nSHA256: "
    own.write("/root/apt/Packages", control + sha256(package).hexdigest() + "\n")
    source = "deb [trusted=yes] file:/root/apt ./\n"
    own.write("/etc/apt/sources.list", source)
    done = own.install()
    assert done.returncode == 0, done.stderr
    assert "Packages: logrotate" in done.stdout
