"""`flask metrics`: exposes the counts of all processes, and the service's state.

It listens on its own port (APP_METRICS_BIND), which no proxy exposes.
"""

import signal
from wsgiref.simple_server import WSGIServer

import click
from flask import Flask, current_app
from flask.cli import with_appcontext
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from bulwark import settings
from bulwark.audit import events
from bulwark.ops.state_metrics import StateCollector


def init_app(app: Flask) -> None:
    """Add the command."""
    app.cli.add_command(serve)


@click.command("metrics")
@with_appcontext
def serve() -> None:
    """Serve metrics on APP_METRICS_BIND until stopped."""
    config = settings.current()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    # Threads of the server inherit this mask, so only sigwait() gets these signals.
    stop_signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    server = listen(config.metrics_bind, registry(app))
    with server, events.log_lifecycle("metrics"):
        signal.sigwait(stop_signals)
        server.shutdown()


def listen(bind: str, metrics: CollectorRegistry) -> WSGIServer:
    """Serve at an address like `127.0.0.1:9464` or `[::1]:9464`, in threads."""
    host, _, port = bind.rpartition(":")
    server, _ = start_http_server(int(port), host.strip("[]"), metrics)
    return server


def registry(app: Flask) -> CollectorRegistry:
    """Return the registry of all metrics."""
    metrics = CollectorRegistry()
    folder = app.extensions["bulwark"].metrics_folder
    MultiProcessCollector(metrics, folder)  # type: ignore[no-untyped-call]
    metrics.register(StateCollector(app))
    return metrics
