"""Logs: one JSON object a line in production, readable lines in development."""

import json
import logging
import re
import sys
import time
from collections import Counter
from threading import Lock, Timer
from typing import Any, TextIO

import click
import structlog
from structlog.typing import EventDict, Processor

from bulwark import lines, metrics
from bulwark.config import Config
from bulwark.database import db

shape = lines.Shape()
# What structlog's lines go through: one list for good, for its loggers keep it.
processors: list[Any] = []
encode = json.JSONEncoder().encode  # all but ASCII is escaped: one line stays one
log = structlog.stdlib.get_logger("bulwark")

SERVES = "bulwark.serves"
# Of one kind, from one process. Who causes more floods us: then the number says it all.
# The audit trail keeps each event, the proxy's log each request.
LINES_A_MINUTE = 1000
DETAIL = re.compile(r"\nDETAIL:[^\n]*")
# Only their warnings matter: each request has one line of ours.
CHATTY = ("alembic", "flask-limiter", "huey", "urllib3", "werkzeug")


class Stdout(logging.StreamHandler[TextIO]):
    """Writes to stdout, whatever it is at that moment; commands and tests replace it.

    What a command itself logs goes to stderr: its stdout is its answer. One that serves
    until it is stopped has no answer, and says so with `SERVES`.
    """

    @property
    def stream(self) -> TextIO:
        """Where the next line goes."""
        command = click.get_current_context(silent=True)
        return sys.stderr if command and SERVES not in command.meta else sys.stdout

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Take none that lasts."""


def init_app(config: Config, own: Any) -> None:
    """Log to stdout, without what is secret in the settings."""
    secrets = [*lines.secrets_of(config), *(lines.secrets_of(own) if own else ())]
    shape.learn(config, lines.names_of(db.metadata), secrets)
    configure(config.log_level, readable=config.environment != "production")


def configure(level: str, *, readable: bool) -> None:
    """Give the standard library's lines and structlog's the same form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = _for_people() if readable else _for_machines()
    steps: list[Any] = [structlog.stdlib.filter_by_level, *shared, *last, _finished]
    processors[:] = steps
    structlog.configure(
        processors=processors,
        logger_factory=logging.getLogger,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = Stdout()
    handler.setFormatter(
        Formatter(
            foreign_pre_chain=[
                *shared,
                structlog.stdlib.PositionalArgumentsFormatter(),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *last,
            ],
        )
    )
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, Stdout)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _for_people() -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(),
            # Python's own: Rich's is slow, and shows local variables.
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]


def _for_machines() -> list[Processor]:
    return [
        # Without local variables: they may hold what must not be logged.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
        _drop_details,
        shape,
        _as_json,
    ]


class Formatter(structlog.stdlib.ProcessorFormatter):
    """Forms the lines of others; ours are finished when they get here."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return record.msg if hasattr(record, "finished") else super().format(record)


def _finished(_: object, __: str, line: Any) -> Any:
    """Hand a line to the standard library as it is."""
    return (line,), {"extra": {"finished": True}}


def _as_json(_: object, __: str, line: EventDict) -> str:
    return encode(line)


def _drop_details(_: object, __: str, event: EventDict) -> EventDict:
    """Leave out PostgreSQL's DETAIL, which quotes the row: `Key (email)=(…) exists`."""
    for raised in event.get("exception", ()):
        raised["exc_value"] = DETAIL.sub("", raised["exc_value"])
    return event


class Flood:
    """Bounds how many lines of one kind are written, and keeps their count true."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lines: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._ends = 0.0

    def lets_through(self, name: str) -> bool:
        """Count a line, and tell whether it is to be written."""
        with self._lock:
            if time.monotonic() >= self._ends:
                self._lines.clear()
                self._ends = time.monotonic() + 60
            self._lines[name] += 1
            if self._lines[name] <= LINES_A_MINUTE:
                return True
            metrics.current().lines_left_out.labels(name).inc()
            if not self._left_out:
                later = Timer(max(0.1, self._ends - time.monotonic()), self.tell)
                later.daemon = True
                later.start()
            self._left_out[name] += 1
            return False

    def tell(self) -> None:
        """Write how many lines were left out since this was last said."""
        with self._lock:
            left_out, self._left_out = self._left_out, Counter()
        for name, times in left_out.items():
            log.warning("lines_left_out", of=name, count=times)


flood = Flood()
