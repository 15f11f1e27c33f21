"""Who is banned and who is not: fail2ban on a server, and attacks over its network."""

import json
import os
import re
import time
from collections.abc import Iterator

import pytest

from tests.support.deployed import DOMAIN, HOME, NAME
from tests.support.disks import installed
from tests.support.servers import eventually
from tests.support.town import ADDRESS, LOG, PASSWORD, Town, Visitor

GUESSES = {
    "authn_login_fail",
    "authn_mfa_fail",
    "authn_password_change_fail",
    "authn_reauth_fail",
}

pytestmark = [
    pytest.mark.needs("debootstrap", "iproute2"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine"),
]


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
