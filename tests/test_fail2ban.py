"""Who is banned and who is not: fail2ban on a server, and attacks over its network."""

import http.client
import itertools
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from urllib.parse import urlencode

import pytest

from tests.deployed import DOMAIN, HOME, LIVE, NAME, SETTINGS, Server
from tests.disks import installed
from tests.servers import PATIENCE, eventually

FORM = "application/x-www-form-urlencoded"
ADDRESS, PASSWORD = "jo@bulwark-tests.net", "eleven-purple-tractors-sing"
LOG = "/var/log/nginx/access.log"
SHORTLY = 2.0  # seconds
# Linux lets a socket have any address of a local IPv6 route only if told so: ipv6(7).
IPV6_FREEBIND = 78
GUESSES = {
    "authn_login_fail",
    "authn_mfa_fail",
    "authn_password_change_fail",
    "authn_reauth_fail",
}
# Records security events as a request does: name, address and browser in each line.
RECORD = """
import json, sys
from wsgi import app
from bulwark.audit import events
from bulwark.database import db
for name, address, agent in json.load(sys.stdin):
    with app.test_request_context(
        "/login", environ_base={"REMOTE_ADDR": address}, headers={"User-Agent": agent}
    ):
        for known in events.CATALOGUE if name == "each" else [name]:
            kept = events.CATALOGUE[known].kept
            (events.record if kept else events.emit)(known)
        db.session.commit()
"""

pytestmark = [
    pytest.mark.needs("debootstrap", "iproute2"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine"),
]


class Town(Server):
    """A server, and a network in which visitors live at as many addresses as needed."""

    def booted(self) -> None:
        self.numbers, self.open_streams = itertools.count(20), ExitStack()
        # There is no name server; fail2ban, which looks up the server's own name, would
        # wait for the one of whoever runs the tests.
        self.run("sh", "-c", "echo nameserver 127.0.0.1 >/etc/resolv.conf")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open_streams.close()
        super().__exit__(kind, error, trace)

    def fresh_address(self, subnet: str = "") -> str:
        """Return an address that nobody had: of IPv4, or in that /64 of IPv6."""
        number = next(self.numbers)
        if subnet:
            return f"{self.network_6}:{subnet}::{number:x}"
        return f"{self.visitor.rpartition('.')[0]}.{number}"

    def open(
        self, address: str, port: int = 443, patience: float = SHORTLY
    ) -> socket.socket:
        """Connect from an address; OSError is no answer in so many seconds."""
        of_ipv6 = ":" in address
        plain = socket.socket(socket.AF_INET6 if of_ipv6 else socket.AF_INET)
        self.open_streams.enter_context(plain)
        plain.settimeout(patience)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if of_ipv6:
            plain.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        plain.bind((address, 0))
        plain.connect((self.address_6 if of_ipv6 else self.address, port))
        return plain

    def answers(self, address: str, port: int = 443) -> bool:
        """Tell whether the kernel lets somebody connect."""
        try:
            self.open(address, port).close()
        except (ConnectionRefusedError, TimeoutError):
            return False
        return True

    def listens_to_quic(self) -> bool:
        return "quic" in self.path(f"/etc/nginx/{NAME}/listen.conf").read_text()

    def refuses_quic(self, address: str) -> bool:
        """Tell whether the kernel says so when somebody sends a datagram."""
        with socket.socket(type=socket.SOCK_DGRAM) as visitor:
            visitor.settimeout(0.5)
            visitor.bind((address, 0))
            visitor.connect((self.address, 443))
            visitor.send(bytes(1200))
            try:
                visitor.recv(1)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
        raise AssertionError("answered what is no QUIC")

    def banned(self) -> set[str]:
        """Return whom the kernel refuses."""
        table = json.loads(self.run("nft", "--json", "list", "ruleset"))["nftables"]
        found = [one for part in table for one in part.get("set", {}).get("elem", [])]
        return {
            f"{one['prefix']['addr']}/{one['prefix']['len']}"
            if isinstance(one, dict)
            else one
            for one in found
        }

    def wait_for_ban(self, who: str) -> None:
        eventually(lambda: who in self.banned(), 20)

    def record(self, *happened: tuple[str, str, str]) -> None:
        """Let the service record security events: name, address and browser of each."""
        python = f"cd {HOME}/current && exec .venv/bin/python -c '{RECORD}'"
        done = subprocess.run(
            self.enter(
                *("runuser", "-u", NAME, "--", "env", "APP_ENV=production"),
                *(f"ENV_FILE={SETTINGS}", "systemd-cat", "-t", "gunicorn"),
                *("sh", "-c", python),
            ),
            input=json.dumps(happened),
            text=True,
            check=False,
        )
        assert done.returncode == 0, self.journal("-n", "30")

    def fail2ban_regex(self, log: str, mode: str) -> list[str]:
        """Return whom fail2ban sees in a log, once for each line that counts."""
        said = self.run("fail2ban-regex", "-o", "id", log, f"{NAME}[mode={mode}]")
        return said.split()


class Visitor:
    """Somebody with a browser, at an address."""

    patience: float = PATIENCE

    def __init__(self, town: Town, address: str = "") -> None:
        self.town, self.address = town, address or town.fresh_address()
        self.cookies: dict[str, str] = {}
        self.token = self.page = ""
        self.connection = http.client.HTTPConnection(DOMAIN)

    def connect(self) -> ssl.SSLSocket:
        trusted = ssl.create_default_context(
            cadata=self.town.path(f"{LIVE}/fullchain.pem").read_text()
        )
        plain = self.town.open(self.address, patience=self.patience)
        stream = trusted.wrap_socket(plain, server_hostname=DOMAIN)
        return self.town.open_streams.enter_context(stream)

    def ask(
        self, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> int:
        """Open a page or send a form, on a connection that stays open."""
        if self.connection.sock is None:
            self.connection.sock = self.connect()
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {"Cookie": cookies, "Referer": f"https://{DOMAIN}/"}
        sent |= headers or {}
        self.connection.request("POST" if body else "GET", path, body, sent)
        answer = self.connection.getresponse()
        self.page = answer.read().decode()
        for cookie in answer.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        if found := re.search(r'name="csrf_token"[^>]* value="([^"]+)"', self.page):
            self.token = found[1]
        return answer.status

    def fill_in(
        self, path: str, headers: dict[str, str] | None = None, **fields: str
    ) -> int:
        """Send a form, whose page was opened before if there was another one."""
        if not self.token:
            self.ask(path)
        body = urlencode({"csrf_token": self.token, **fields})
        return self.ask(path, body, {"Content-Type": FORM} | (headers or {}))

    def say(self, line: bytes, *headers: bytes) -> bytes:
        """Send a request as it is; return the first line that comes back."""
        with self.connect() as stream:
            host = f"Host: {DOMAIN}".encode()
            stream.sendall(b"\r\n".join((line, host, *headers, b"", b"")))
            return stream.recv(65536).partition(b"\r\n")[0]

    def attack(self, act: Callable[[int], object]) -> int:
        """Do it until nobody answers; return how often somebody did."""
        self.connection.close()
        self.patience = SHORTLY
        number, end = 0, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                act(number)
            except OSError:
                self.connection.close()
                if not self.town.answers(self.address):
                    return number
            number += 1
        raise TimeoutError(f"banned are {self.town.banned()} alone")


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def town(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Town]:
    disk = installed(tmp_path_factory, request.param)
    with Town(disk, parts=["web"]) as town:
        town.certify()
        done = town.deploy("fail2ban/install")
        assert done.returncode == 0, done.stderr
        eventually(lambda: town.ask("/readyz").status == 200)
        yield town


def probe(visitor: Visitor) -> None:
    """Ask for what a scanner asks for, often enough for a ban; wait for it."""
    for number in range(12):
        assert visitor.ask(f"/blog/{number}/wp-login.php") == 404
    visitor.town.wait_for_ban(visitor.address)


def test_guessing_passwords_ends_at_the_door(town: Town) -> None:
    attacker, neighbour, victim = (Visitor(town) for _ in range(3))
    lie = (
        f'{victim.address}", "network": "{victim.address}", "event": "authn_login_fail'
    )
    names = ("User-Agent", "X-Forwarded-For", "X-Real-IP", "X-Request-ID", "Forwarded")
    lies = dict.fromkeys(names, f'{lie}", \xe2\x80\xa8 {{"network": "{victim.address}"')
    assert neighbour.ask("/") == 200
    assert (
        neighbour.fill_in("/login", lies, email=f"'\n{lie}'@a.b", password=lie) == 200
    )

    def guess(number: int) -> None:
        fields = {"email": f"jo{number}@bulwark-tests.net", "password": lie}
        if attacker.fill_in("/login", lies, **fields) == 429:
            time.sleep(0.2)  # nginx lets one through each second

    attacker.attack(guess)
    assert attacker.address in town.banned()
    told = [x for x in town.journal().splitlines() if f'"{attacker.address}"' in x]
    # Those that were on their way when it began to matter count too.
    assert 30 <= sum('"authn_login_fail", "request_id"' in x for x in told) < 45
    assert not town.answers(attacker.address, 80)
    eventually(lambda: town.refuses_quic(attacker.address), 10)
    assert not town.listens_to_quic() or not town.refuses_quic(neighbour.address)
    assert all(town.answers(other.address) for other in (neighbour, victim))
    assert victim.address not in town.path("/var/log/fail2ban.log").read_text()

    town.run("fail2ban-client", "unban", attacker.address)
    assert Visitor(town, attacker.address).ask("/") == 200


def test_somebody_who_mistypes_twice_signs_in(town: Town) -> None:
    said = town.deploy("systemd/flask", "accounts", "invite", ADDRESS).stdout
    link = re.search(r"https://[^/]+(/\S+)", said)
    assert link, said
    visitor = Visitor(town)
    assert visitor.fill_in(link[1], password=PASSWORD) == 302
    for password, status in (("elven", 200), ("eleven-purple", 200), (PASSWORD, 302)):
        sent = visitor.fill_in("/login", email=ADDRESS, password=password)
        assert sent == status
    assert visitor.ask("/account") == 200
    assert town.answers(visitor.address)


def test_an_office_behind_one_address_keeps_its_access(town: Town) -> None:
    office = town.fresh_address()
    right = [("authn_login_success", office, "Firefox")] * 200
    wrong = [("authn_login_fail", office, "Firefox")] * 20
    town.record(*right, *wrong)
    # What was recorded after it has been read: fail2ban reads in order.
    scout = town.fresh_address()
    town.record(*[("authn_mfa_fail", scout, "curl")] * 30)
    town.wait_for_ban(scout)
    assert town.answers(office)


def test_only_guesses_count_whatever_a_browser_calls_itself(town: Town) -> None:
    lie = '", "network": "192.0.2.1", "event": "authn_login_fail", "x": "'
    agents = [
        lie,
        f"\\{lie}",
        f"\u2028{lie}",
        "x" * 300 + lie,
        '{"network": "192.0.2.1"}',
    ]
    happened = [("each", f"198.51.100.{n}", agent) for n, agent in enumerate(agents)]
    happened += [("each", "2001:db8:0:1:2:3:4:5", "Firefox"), ("each", "unix:", "curl")]
    before = town.fail2ban_regex("systemd-journal", "guesses")
    town.record(*happened)
    found = town.fail2ban_regex("systemd-journal", "guesses")
    for who in before:
        found.remove(who)
    expected = [f"198.51.100.{n}" for n in range(len(agents))] + ["2001:db8:0:1::/64"]
    assert sorted(found) == sorted(expected * len(GUESSES))


def test_scanners_are_banned_for_longer_each_time(town: Town) -> None:
    scanner = Visitor(town)
    jail = f"{NAME}-probes"
    town.run("fail2ban-client", "set", jail, "bantime", "5")
    probe(scanner)
    eventually(lambda: town.answers(scanner.address), 20)
    again = Visitor(town, scanner.address)
    assert again.ask("/") == 200
    probe(again)
    bans = town.run("fail2ban-client", "get", jail, "banip", "--with-time")
    town.run("fail2ban-client", "set", jail, "bantime", "600")
    assert re.search(rf"^{scanner.address} .* \+ 10 = ", bans, re.MULTILINE), bans


def test_what_a_scanner_writes_into_the_log_bans_nobody_else(town: Town) -> None:
    # Short enough for the part of a path that is logged.
    line = b'","network":"1.2.3.4"/.env","status":"404'
    paths = [
        b"/" + line,
        b"/a/\\" + line,
        b"/a/%0a%0d{" + line,
        b"/\xe2\x80\xa8/" + line,
        b"/\xff\xc2\x85\x1b[2K/" + line,
        b"/.env?" + line,
        b"https://1.2.3.4/.env",
    ]
    claims = (b"User-Agent: ", b"Referer: ", b"X-Forwarded-For: ", b"Cookie: x=")
    for method in (b"GET", b'G"ET', line):
        scanner = Visitor(town)
        for path in paths:
            request = method + b" " + path + b" HTTP/1.1"
            scanner.say(request, *(claim + line for claim in claims))
    probe(Visitor(town))  # read after all that
    assert "1.2.3.4" in town.path(LOG).read_text(errors="replace")
    assert "1.2.3.4" not in town.path("/var/log/fail2ban.log").read_text()


def test_who_does_not_mind_the_limits_is_banned(town: Town) -> None:
    flooder, neighbour = Visitor(town), Visitor(town)
    assert flooder.attack(lambda _: flooder.ask("/static/app.css")) > 500
    assert neighbour.ask("/") == 200


def test_of_ipv6_a_whole_network_is_banned(town: Town) -> None:
    neighbours = [Visitor(town, town.fresh_address(subnet="1")) for _ in range(5)]
    other = Visitor(town, town.fresh_address(subnet="2"))
    for number in range(100):
        assert neighbours[number % 5].ask(f"/nowhere/{number}") == 404
    town.wait_for_ban(f"{town.network_6}:1::/64")
    assert not any(town.answers(one.address) for one in neighbours)
    assert not town.answers(town.fresh_address(subnet="1"))
    assert other.ask("/") == 200


def test_what_browsers_ask_for_unseen_does_not_count(town: Town) -> None:
    visitor, scout = Visitor(town), Visitor(town)
    unseen = ("/favicon.ico", "/apple-touch-icon.png", "/.well-known/change-password")
    for number in range(150):
        assert visitor.ask(unseen[number % 3]) == 404
    probe(scout)
    assert town.answers(visitor.address)


def test_the_server_itself_is_never_banned(town: Town) -> None:
    for own in ("127.0.0.1", "[::1]"):
        place = f"{DOMAIN}:443:{own}"
        page = f"https://{DOMAIN}/[1-30]/wp-login.php"
        town.run("curl", "-sk", "--resolve", place, page)
    probe(Visitor(town))
    assert not town.banned() & {"127.0.0.1", "::1"}


def test_networks_of_the_operator_are_never_banned(town: Town) -> None:
    friend = Visitor(town)
    jail = f"[{NAME}-probes]\nignoreip = 127.0.0.0/8 ::1 {friend.address}/32\n"
    town.write(f"/etc/fail2ban/jail.d/{NAME}.local", jail)
    assert town.deploy("fail2ban/install").returncode == 0
    for _ in range(30):
        assert friend.ask("/wp-login.php") == 404
    probe(Visitor(town))
    assert town.answers(friend.address)


def test_a_restart_keeps_bans_and_no_log_lines(town: Town) -> None:
    scanner = Visitor(town)
    probe(scanner)
    town.run("systemctl", "restart", "fail2ban")
    town.wait_for_ban(scanner.address)
    assert not town.answers(scanner.address)
    kept = town.path("/var/lib/fail2ban/fail2ban.sqlite3").read_bytes()
    assert scanner.address.encode() in kept
    assert b"wp-login" not in kept


def test_rotated_logs_are_followed(town: Town) -> None:
    town.run("logrotate", "--force", "/etc/logrotate.d/nginx")
    assert town.path(f"{LOG}.1").exists()
    probe(Visitor(town))


def test_each_line_of_the_access_log_is_read_as_what_it_says(town: Town) -> None:
    probe(Visitor(town))
    text = town.path(LOG).read_text(errors="replace")
    lines = [json.loads(line) for line in text.split("\n") if line]
    assert len(lines) >= 10
    limited = [line["network"] for line in lines if line["status"] == "429"]
    probed = [line["network"] for line in lines if line["path"].endswith(".php")]
    assert town.fail2ban_regex(LOG, "limits") == limited
    assert town.fail2ban_regex(LOG, "probes") == probed


def test_a_jail_that_fail2ban_refuses_changes_nothing(town: Town) -> None:
    jails = town.path(f"/etc/fail2ban/jail.d/{NAME}.conf").read_text()
    broken = town.path(f"{HOME}/current/deploy/fail2ban/jail.conf")
    good = broken.read_text()
    broken.write_text(good.replace("maxretry = 30", "maxretry = many"))
    done = town.deploy("fail2ban/install")
    broken.write_text(good)
    assert done.returncode == 1
    assert "the previous ones were restored" in done.stderr
    assert "edge-test-guesses" in town.run("fail2ban-client", "status")
    assert town.path(f"/etc/fail2ban/jail.d/{NAME}.conf").read_text() == jails
