"""Measures what a full TLS handshake costs the server, against one with RSA-2048.

    sudo .venv/bin/python -m tests.benchmarks.handshake

nginx of Debian 13 with the TLS settings of a service, on a machine of its own: the CPU
time of its worker, for each kind of certificate and key exchange in turn. A minute.
"""

import statistics

from tests.conftest import ROOT
from tests.support.machine import Machine

ROUNDS, HANDSHAKES = 7, 1000
BASELINE = "RSA-2048, X25519"
# The certificate's key as openssl names it, the groups that are offered.
KINDS = {
    BASELINE: ("rsa:2048", "X25519"),
    "P-256, X25519": ("ec:P-256", "X25519"),
    "P-256, X25519MLKEM768": ("ec:P-256", "X25519MLKEM768"),
}
NGINX = """
worker_processes 1;
pid /run/nginx.pid;
events {}
http {
    access_log off;
    include /root/servers.conf;
}
"""
SERVER = """
server {{
    listen {port} ssl;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve {groups};
    ssl_certificate /root/{port}.pem;
    ssl_certificate_key /root/{port}.key;
    include /root/tls.conf;
}}
"""
# Each connection is new, and resumes nothing.
CLIENT = f"""
import socket, ssl, sys

context = ssl._create_unverified_context()
for _ in range({HANDSHAKES}):
    stream = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    context.wrap_socket(stream).close()
"""


def start(machine: Machine) -> dict[str, int]:
    """Start nginx; return the port of each kind."""
    ports = {name: 4001 + place for place, name in enumerate(KINDS)}
    servers = ""
    for name, (key, groups) in KINDS.items():
        port = ports[name]
        algorithm, _, size = key.partition(":")
        option = (
            f"{algorithm}_{'keygen_bits' if algorithm == 'rsa' else 'paramgen_curve'}"
        )
        machine.run(
            *("openssl", "req", "-x509", "-nodes", "-subj", "/CN=benchmark"),
            *("-newkey", algorithm, "-pkeyopt", f"{option}:{size}"),
            *("-keyout", f"/root/{port}.key", "-out", f"/root/{port}.pem"),
        )
        servers += SERVER.format(port=port, groups=groups)
    machine.write(
        "/root/tls.conf", (ROOT / "template/deploy/nginx/tls.conf").read_text()
    )
    machine.write("/root/servers.conf", servers)
    machine.write("/etc/nginx/nginx.conf", NGINX)
    machine.write("/root/client.py", CLIENT)
    machine.run("systemctl", "start", "nginx")
    return ports


def seconds_on_cpu(machine: Machine) -> float:
    """Return what the worker has used; the first number is in nanoseconds."""
    master = machine.path("/run/nginx.pid").read_text().strip()
    worker = machine.run("pgrep", "-P", master).strip()
    return int(machine.path(f"/proc/{worker}/schedstat").read_text().split()[0]) / 1e9


def main() -> None:
    cost: dict[str, list[float]] = {name: [] for name in KINDS}
    with Machine("trixie") as machine:
        ports = start(machine)
        for _ in range(ROUNDS):
            for name, port in ports.items():
                before = seconds_on_cpu(machine)
                machine.run("python3", "/root/client.py", str(port))
                used = seconds_on_cpu(machine) - before
                cost[name].append(used / HANDSHAKES)
    compared = statistics.median(cost[BASELINE])
    for name, values in cost.items():
        middle = statistics.median(values)
        print(
            f"{name}: {1e6 * middle:.0f} µs of CPU a handshake"
            f" ({1e6 * min(values):.0f} to {1e6 * max(values):.0f}),"
            f" {middle / compared:.2f} × {BASELINE}"
        )


if __name__ == "__main__":
    main()
