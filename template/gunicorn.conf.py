"""How gunicorn runs the service. Its caller, in deploy/, sets where it listens."""

import gc
import os
from typing import Any

gc.disable()  # wsgi.py, which gunicorn loads next, explains why and enables it again

from gunicorn import glogging  # noqa: E402

from bulwark.audit import events, promises  # noqa: E402
from bulwark.database import db  # noqa: E402
from bulwark.jobs import queue  # noqa: E402
from bulwark.ops import cores  # noqa: E402

wsgi_app = "wsgi:app"

# Processes use the cores, threads wait for the database. At most 8 x 6 requests run at
# once, well under the 100 connections of PostgreSQL (the default of max_connections).
# Four threads of a process may wait for a password to be hashed (password_hashing).
worker_class = "gthread"
workers = min(max(2, cores.count()), 8)
threads = 6
# A worker accepts no more connections than it can serve at once. The others wait in the
# socket's queue for any worker. Otherwise the first worker to wake up accepts a burst,
# and the others idle (docs/decisions/0035-even-workers.md).
worker_connections = threads
# Loaded once, then forked: starts in a third of the time, needs a third of the memory,
# and rejected settings stop gunicorn itself.
preload_app = True
# Bounds memory leaks; the jitter keeps workers from restarting at the same time.
max_requests = 10_000
max_requests_jitter = 1_000

# Seconds until an unresponsive worker is replaced, and for a stopping one to finish.
timeout = 30
graceful_timeout = 30
# The proxies close each connection, too: an open one would occupy a thread's place.
keepalive = 0
# The heartbeat must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

# No more than what nginx accepts (large_client_header_buffers).
limit_request_line = 8190
limit_request_field_size = 8190
limit_request_fields = 64
# `X_Real_Ip` must not pass for `X-Real-Ip`.
header_map = "drop"
# Only bulwark.web.proxy decides what to trust from a proxy. gunicorn must trust
# nothing; by default, it trusts every client of a Unix socket.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# No control socket, and a socket only for its owner and group.
control_socket_disable = True
umask = 0o007


class Logger(glogging.Logger):  # type: ignore[misc]
    """Passes gunicorn's own lines to the formatter of bulwark.observability.logging."""

    def setup(self, cfg: Any) -> None:
        """Remove gunicorn's own handler."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


logger_class = Logger


def when_ready(server: Any) -> None:
    """Log that the service has started."""
    with server.app.wsgi().app_context():
        events.emit("sys_startup", part="web")
        promises.log_given_up()


def on_exit(server: Any) -> None:
    """Log that the service has stopped."""
    with server.app.wsgi().app_context():
        events.emit("sys_shutdown", part="web")


def post_fork(server: Any, worker: Any) -> None:
    """Make each worker open its own connections: processes must not share one."""
    with server.app.wsgi().app_context():
        db.engine.dispose(close=False)
    queue.storage.close()
