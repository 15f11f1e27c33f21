"""Behind a company's proxy, which is no way to this machine itself."""

import os
import sys
from pathlib import Path

from tests.conftest import Make, run

# nginx, which has port 80, is a server of its own here.
LOOK = """
import functools, http.server, pathlib, socket, sys, threading
sys.path.insert(0, "deploy/certbot")
import proxy

proxy.WEBROOT = folder = pathlib.Path(sys.argv[1])
files = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), files)
threading.Thread(target=server.serve_forever, daemon=True).start()
connect = socket.create_connection

def to_this_machine(address, *options, **more):
    here = address == ("127.0.0.1", 80)
    return connect(server.server_address if here else address, *options, **more)

socket.create_connection = to_this_machine
print(proxy.serves_challenges("shop.test"))
"""


def test_a_proof_is_looked_for_on_this_machine_not_through_the_proxy(
    make: Make, tmp_path: Path
) -> None:
    """Python's NO_PROXY takes no networks: getsentry/self-hosted#4441."""
    environment = os.environ | {"http_proxy": "http://127.0.0.1:1"}
    environment.pop("no_proxy", None)
    command = (sys.executable, "-c", LOOK, str(tmp_path / "webroot"))
    assert run(*command, cwd=make(), env=environment).strip() == "True"
