"""Let's Encrypt for a machine: Pebble at its addresses, on a network that is apart.

Commands run as they are written for servers, without an option for tests: names are
looked up in a DNS that tests change, and lead to and from a real port 80.
"""

import json
from typing import Any

from tests.support.machine import Machine
from tests.support.servers import eventually

MACHINE, AUTHORITY = "192.0.2.1", "192.0.2.2"
PRODUCTION = "acme-v02.api.letsencrypt.org"
STAGING = "acme-staging-v02.api.letsencrypt.org"
FOLDER = "/var/lib/pebble"
TRUST = f"{FOLDER}/authority.pem"
DAY = 24 * 60 * 60

NETWORK = f"""
ip netns add authority
ip link add authority type veth peer name eth0 netns authority
ip address add {MACHINE}/24 dev authority
ip link set authority up
ip -n authority address add {AUTHORITY}/24 dev eth0
ip -n authority link set eth0 up
ip -n authority link set lo up
echo nameserver {AUTHORITY} >/etc/resolv.conf
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 \\
  -addext subjectAltName=DNS:{PRODUCTION},DNS:{STAGING},IP:127.0.0.1 \\
  -subj /CN=authority -keyout {FOLDER}/key.pem -out {TRUST} 2>/dev/null
systemctl set-environment REQUESTS_CA_BUNDLE={TRUST} SSL_CERT_FILE={TRUST}
"""
# Pebble's directory has another path than Let's Encrypt's.
FRONT = f"""
pid {FOLDER}/front.pid;
error_log stderr;
events {{}}
http {{
    log_format asked '$host $request_method $uri';
    access_log {FOLDER}/asked.log asked;
    server {{
        listen {AUTHORITY}:443 ssl;
        ssl_certificate {TRUST};
        ssl_certificate_key {FOLDER}/key.pem;
        proxy_set_header Host $host;
        location = /directory {{
            sub_filter_types application/json;
            #hidden
            proxy_pass https://127.0.0.1:14000/dir;
        }}
        location / {{
            proxy_pass https://127.0.0.1:14000;
        }}
        location = /order-plz {{
            error_page 429 /refused;
            if (-f {FOLDER}/refused) {{
                return 429;
            }}
            proxy_pass https://127.0.0.1:14000;
        }}
        location = /refused {{
            internal;
            root {FOLDER};
            default_type application/problem+json;
        }}
    }}
}}
"""
UNIT = """
[Service]
NetworkNamespacePath=/run/netns/authority
Environment=PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 PEBBLE_AUTHZREUSE=0
ExecStart="""
COMMANDS = {
    "authority-dns": f"pebble-challtestsrv -dns01 {AUTHORITY}:53 "
    '-http01 "" -https01 "" -tlsalpn01 "" '
    f'-management {AUTHORITY}:8055 -defaultIPv4 {MACHINE} -defaultIPv6 ""',
    "authority-pebble": f"pebble -config {FOLDER}/pebble.json "
    f"-dnsserver {AUTHORITY}:53 -strict",
    "authority-front": f"nginx -c {FOLDER}/front.conf -g 'daemon off;'",
}


class Pebble:
    """An authority that a machine can reach, and that reaches the machine."""

    def __init__(
        self, machine: Machine, lifetime: int = 90 * DAY, wishes: bool = True
    ) -> None:
        """Start it; certificates live for so many seconds, maybe with a wish (ARI)."""
        self.machine = machine
        settings = {
            "listenAddress": "127.0.0.1:14000",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": TRUST,
            "privateKey": f"{FOLDER}/key.pem",
            "httpPort": 80,
            "tlsPort": 443,
            "certificateValidityPeriod": lifetime - 1,  # its last second counts, too
        }
        machine.write(f"{FOLDER}/pebble.json", json.dumps({"pebble": settings}))
        hidden = "" if wishes else "sub_filter renewalInfo none;"
        machine.write(f"{FOLDER}/front.conf", FRONT.replace("#hidden", hidden))
        machine.run("sh", "-ec", NETWORK)
        for name, command in COMMANDS.items():
            machine.write(f"/run/systemd/system/{name}.service", UNIT + command)
        machine.run("systemctl", "daemon-reload")
        self.reset()

    def reset(self) -> None:
        """Start, and know nothing: no account, no certificate, no order."""
        for name in ("refused", "asked.log"):
            self.machine.path(f"{FOLDER}/{name}").unlink(missing_ok=True)
        self.machine.run("systemctl", "restart", *COMMANDS)
        address = f"{PRODUCTION}:443:{AUTHORITY}"
        ask = ("curl", "-sf", "--resolve", address, "--cacert", TRUST)
        directory = (*ask, f"https://{PRODUCTION}/directory")
        eventually(lambda: self.machine.attempt(*directory).returncode == 0)
        for name in (PRODUCTION, STAGING):
            self.dns("add-a", host=name, addresses=[AUTHORITY])
        apart = ("nsenter", "--net=/run/netns/authority")
        roots = "https://127.0.0.1:15000/roots/0"
        self.root = self.machine.run(*apart, "curl", "-sf", "--cacert", TRUST, roots)

    def close(self) -> None:
        """Answer nobody, until `open`; accounts and certificates stay known."""
        self.machine.run("systemctl", "stop", "authority-front")

    def open(self) -> None:
        self.machine.run("systemctl", "start", "authority-front")

    def refuse(self, error: str, detail: str) -> None:
        """Take no orders, for a reason that Pebble does not know; RFC 8555, 6.7."""
        problem = {"type": f"urn:ietf:params:acme:error:{error}", "detail": detail}
        self.machine.write(f"{FOLDER}/refused", json.dumps(problem))

    def relent(self) -> None:
        self.machine.path(f"{FOLDER}/refused").unlink()

    def dns(self, change: str, **record: Any) -> None:
        """Change what DNS says: add-a, set-default-ipv4 and others of challtestsrv."""
        url = f"http://{AUTHORITY}:8055/{change}"
        self.machine.run("curl", "-sf", "-d", json.dumps(record), url)

    def issued(self, authority: str = PRODUCTION) -> int:
        """Return how many certificates one of the two has issued.

        Orders can't be counted: Pebble reuses one authorization in a hundred even at
        PEBBLE_AUTHZREUSE=0, and certbot's dry run then orders a second time.
        """
        asked = self.machine.path(f"{FOLDER}/asked.log").read_text().splitlines()
        issued = f"{authority} POST /finalize-order/"
        return sum(request.startswith(issued) for request in asked)
