"""How gunicorn runs the service. Where it listens is said by who starts it: deploy/."""

import os
from typing import Any

from gunicorn import glogging

from bulwark import cores, events
from bulwark.database import db
from bulwark.jobs import queue

wsgi_app = "wsgi:app"

# Processes use the cores, threads wait for the database. At most 8 x 6 requests run at
# once, well under the 100 connections of PostgreSQL (the default of max_connections).
# Four threads of a process may wait for a password (bulwark.identity.hashing).
worker_class = "gthread"
workers = min(max(2, cores.count()), 8)
threads = 6
# Loaded once, then forked: starts in a third of the time, needs a third of the memory,
# and settings that are refused end gunicorn itself.
preload_app = True
# Whatever leaks, leaks for so long only; the jitter keeps workers from ending together.
max_requests = 10_000
max_requests_jitter = 1_000

# A worker that says nothing for so long is replaced; one that ends may finish first.
timeout = 30
graceful_timeout = 30
# Longer than nginx keeps an idle connection (60 s), so that nginx is who ends it.
keepalive = 75
# The sign of life must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

# What nginx lets pass (large_client_header_buffers) and no more.
limit_request_line = 8190
limit_request_field_size = 8190
limit_request_fields = 64
# `X_Real_Ip` must not pass for `X-Real-Ip`.
header_map = "drop"
# bulwark.proxy alone decides what to believe of a proxy; gunicorn believes nothing,
# although it trusts whoever can reach a unix socket.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# No second way in, and a socket for the owner and his group alone.
control_socket_disable = True
umask = 0o007


class Logger(glogging.Logger):  # type: ignore[misc]
    """Leaves gunicorn's own lines to the formatter of bulwark.logging."""

    def setup(self, cfg: Any) -> None:
        """Take away the handler that gunicorn brings."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


logger_class = Logger


def when_ready(server: Any) -> None:
    """Say that the service is served from now on."""
    with server.app.wsgi().app_context():
        events.tell("sys_startup", part="web")


def on_exit(server: Any) -> None:
    """Say that it is no more."""
    with server.app.wsgi().app_context():
        events.tell("sys_shutdown", part="web")


def post_fork(server: Any, worker: Any) -> None:
    """Let each worker connect anew: two processes must not talk over one connection."""
    with server.app.wsgi().app_context():
        db.engine.dispose(close=False)
    queue.storage.close()
