"""Who is banned and who is not: fail2ban on a server, and attacks over its network."""

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.support.deployed import HOME, NAME
from tests.support.disks import installed
from tests.support.machine import NEEDS_MACHINE
from tests.support.public_server import LOG, PublicServer, PublicVisitor
from tests.support.servers import eventually
from tests.support.visitor import ADDRESS, DOMAIN, PASSWORD

GUESSES = {
    "authn_login_fail",
    "authn_mfa_fail",
    "authn_password_change_fail",
    "authn_reauth_fail",
}

pytestmark = NEEDS_MACHINE


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PublicServer]:
    disk = installed(tmp_path_factory, request.param)
    with PublicServer(disk, parts=["web"]) as server:
        server.certify()
        done = server.deploy("fail2ban/install")
        assert done.returncode == 0, done.stderr
        eventually(lambda: server.ask("/readyz").status == 200)
        yield server


def probe(visitor: PublicVisitor) -> None:
    """Ask for what a scanner asks for, often enough for a ban; wait for it."""
    for number in range(12):
        assert visitor.ask(f"/blog/{number}/wp-login.php").status == 404
    visitor.server.wait_for_ban(visitor.address)


def test_guessing_passwords_ends_with_a_ban(server: PublicServer) -> None:
    attacker, neighbour, victim = (PublicVisitor(server) for _ in range(3))
    lie = (
        f'{victim.address}", "network": "{victim.address}", "event": "authn_login_fail'
    )
    names = ("User-Agent", "X-Forwarded-For", "X-Real-IP", "X-Request-ID", "Forwarded")
    lies = dict.fromkeys(names, f'{lie}", \xe2\x80\xa8 {{"network": "{victim.address}"')
    assert neighbour.ask("/").status == 200
    fields = {"email": f"'\n{lie}'@a.b", "password": lie}
    assert neighbour.submit("/login", lies, **fields).status == 200

    def guess(number: int) -> None:
        fields = {"email": f"jo{number}@bulwark-tests.net", "password": lie}
        if attacker.submit("/login", lies, **fields).status == 429:
            time.sleep(0.2)  # nginx lets one through each second

    attacker.attack(guess)
    assert attacker.address in server.banned()
    logged = [x for x in server.journal().splitlines() if f'"{attacker.address}"' in x]
    # Those that were on their way when it began to matter count too.
    assert 30 <= sum('"authn_login_fail", "request_id"' in x for x in logged) < 45
    assert not server.answers(attacker.address, 80)
    eventually(lambda: server.refuses_quic(attacker.address), 10)
    assert not server.listens_to_quic() or not server.refuses_quic(neighbour.address)
    assert all(server.answers(other.address) for other in (neighbour, victim))
    assert victim.address not in server.path("/var/log/fail2ban.log").read_text()

    server.run("fail2ban-client", "unban", attacker.address)
    assert PublicVisitor(server, attacker.address).ask("/").status == 200


def test_a_user_who_mistypes_twice_signs_in(server: PublicServer) -> None:
    output = server.deploy("systemd/flask", "accounts", "invite", ADDRESS).stdout
    link = re.search(r"https://[^/]+(/\S+)", output)
    assert link, output
    visitor = PublicVisitor(server)
    assert visitor.submit(link[1], password=PASSWORD).status == 302
    for password, status in (("elven", 200), ("eleven-purple", 200), (PASSWORD, 302)):
        assert (
            visitor.submit("/login", email=ADDRESS, password=password).status == status
        )
    assert visitor.ask("/account").status == 200
    assert server.answers(visitor.address)


def test_an_office_behind_one_address_keeps_its_access(server: PublicServer) -> None:
    office = server.fresh_address()
    right = [("authn_login_success", office, "Firefox")] * 200
    wrong = [("authn_login_fail", office, "Firefox")] * 20
    server.record(*right, *wrong)
    # What was recorded after it has been read: fail2ban reads in order.
    scout = server.fresh_address()
    server.record(*[("authn_mfa_fail", scout, "curl")] * 30)
    server.wait_for_ban(scout)
    assert server.answers(office)


def test_only_guesses_count_whatever_a_browser_calls_itself(
    server: PublicServer,
) -> None:
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
    before = server.fail2ban_regex("systemd-journal", "guesses")
    server.record(*happened)
    found = server.fail2ban_regex("systemd-journal", "guesses")
    for who in before:
        found.remove(who)
    expected = [f"198.51.100.{n}" for n in range(len(agents))] + ["2001:db8:0:1::/64"]
    assert sorted(found) == sorted(expected * len(GUESSES))


def test_scanners_are_banned_for_longer_each_time(server: PublicServer) -> None:
    scanner = PublicVisitor(server)
    jail = f"{NAME}-probes"
    server.run("fail2ban-client", "set", jail, "bantime", "5")
    probe(scanner)
    eventually(lambda: server.answers(scanner.address), 20)
    again = PublicVisitor(server, scanner.address)
    assert again.ask("/").status == 200
    probe(again)
    bans = server.run("fail2ban-client", "get", jail, "banip", "--with-time")
    server.run("fail2ban-client", "set", jail, "bantime", "600")
    assert re.search(rf"^{scanner.address} .* \+ 10 = ", bans, re.MULTILINE), bans


def test_what_a_scanner_writes_into_the_log_bans_nobody_else(
    server: PublicServer,
) -> None:
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
        scanner = PublicVisitor(server)
        for path in paths:
            request = method + b" " + path + b" HTTP/1.1"
            scanner.send_line(request, *(claim + line for claim in claims))
    probe(PublicVisitor(server))  # read after all that
    assert "1.2.3.4" in server.path(LOG).read_text(errors="replace")
    assert "1.2.3.4" not in server.path("/var/log/fail2ban.log").read_text()


def test_a_client_that_ignores_the_limits_is_banned(server: PublicServer) -> None:
    flooder, neighbour = PublicVisitor(server), PublicVisitor(server)
    assert flooder.attack(lambda _: flooder.ask("/static/app.css")) > 500
    assert neighbour.ask("/").status == 200


def test_of_ipv6_a_whole_network_is_banned(server: PublicServer) -> None:
    neighbours = [
        PublicVisitor(server, server.fresh_address(subnet="1")) for _ in range(5)
    ]
    other = PublicVisitor(server, server.fresh_address(subnet="2"))
    for number in range(100):
        assert neighbours[number % 5].ask(f"/nowhere/{number}").status == 404
    server.wait_for_ban(f"{server.network_6}:1::/64")
    assert not any(server.answers(one.address) for one in neighbours)
    assert not server.answers(server.fresh_address(subnet="1"))
    assert other.ask("/").status == 200


def test_what_browsers_ask_for_unseen_does_not_count(server: PublicServer) -> None:
    visitor, scout = PublicVisitor(server), PublicVisitor(server)
    unseen = ("/favicon.ico", "/apple-touch-icon.png", "/.well-known/change-password")
    for number in range(150):
        assert visitor.ask(unseen[number % 3]).status == 404
    probe(scout)
    assert server.answers(visitor.address)


def test_the_server_itself_is_never_banned(server: PublicServer) -> None:
    for own in ("127.0.0.1", "[::1]"):
        place = f"{DOMAIN}:443:{own}"
        page = f"https://{DOMAIN}/[1-30]/wp-login.php"
        server.run("curl", "-sk", "--resolve", place, page)
    probe(PublicVisitor(server))
    assert not server.banned() & {"127.0.0.1", "::1"}


def test_networks_of_the_operator_are_never_banned(server: PublicServer) -> None:
    friend = PublicVisitor(server)
    jail = f"[{NAME}-probes]\nignoreip = 127.0.0.0/8 ::1 {friend.address}/32\n"
    server.write(f"/etc/fail2ban/jail.d/{NAME}.local", jail)
    assert server.deploy("fail2ban/install").returncode == 0
    for _ in range(30):
        assert friend.ask("/wp-login.php").status == 404
    probe(PublicVisitor(server))
    assert server.answers(friend.address)


def test_a_restart_keeps_bans_and_no_log_lines(server: PublicServer) -> None:
    scanner = PublicVisitor(server)
    probe(scanner)
    server.run("systemctl", "restart", "fail2ban")
    server.wait_for_ban(scanner.address)
    assert not server.answers(scanner.address)
    kept = server.path("/var/lib/fail2ban/fail2ban.sqlite3").read_bytes()
    assert scanner.address.encode() in kept
    assert b"wp-login" not in kept


def test_rotated_logs_are_followed(server: PublicServer) -> None:
    server.run("logrotate", "--force", "/etc/logrotate.d/nginx")
    assert server.path(f"{LOG}.1").exists()
    probe(PublicVisitor(server))


def test_each_line_of_the_access_log_is_matched_correctly(
    server: PublicServer,
) -> None:
    probe(PublicVisitor(server))
    text = server.path(LOG).read_text(errors="replace")
    lines = [json.loads(line) for line in text.split("\n") if line]
    assert len(lines) >= 10
    limited = [line["network"] for line in lines if line["status"] == "429"]
    probed = [line["network"] for line in lines if line["path"].endswith(".php")]
    assert server.fail2ban_regex(LOG, "limits") == limited
    assert server.fail2ban_regex(LOG, "probes") == probed


def test_a_jail_that_fail2ban_refuses_changes_nothing(server: PublicServer) -> None:
    jails = server.path(f"/etc/fail2ban/jail.d/{NAME}.conf").read_text()
    broken = server.path(f"{HOME}/current/deploy/fail2ban/jail.conf")
    good = broken.read_text()
    broken.write_text(good.replace("maxretry = 30", "maxretry = many"))
    done = server.deploy("fail2ban/install")
    broken.write_text(good)
    assert done.returncode == 1
    assert "the previous ones were restored" in done.stderr
    assert "edge-test-guesses" in server.run("fail2ban-client", "status")
    assert server.path(f"/etc/fail2ban/jail.d/{NAME}.conf").read_text() == jails
