"""Logs: one JSON object per line in production, readable lines in development."""

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
from sqlalchemy import MetaData
from structlog.typing import EventDict, Processor

from bulwark.observability import metrics, redaction
from bulwark.settings import Config

shape = redaction.Shape()
# structlog's processors. The list is never replaced, because loggers cache it.
processors: list[Any] = []
encode = json.JSONEncoder().encode  # escapes all but ASCII: one line stays one
log = structlog.stdlib.get_logger("bulwark")

LONG_RUNNING = "bulwark.long_running"
# For each kind of line in a process. Further lines are only counted: the audit trail
# still has each event, and the proxy's log each request.
LINES_A_MINUTE = 1000
DETAIL = re.compile(r"\nDETAIL:[^\n]*")
# Only warnings of these: the base already logs one line for each request.
CHATTY = ("alembic", "flask-limiter", "huey", "urllib3", "werkzeug")


class Stdout(logging.StreamHandler[TextIO]):
    """Writes to the current stdout, which commands and tests replace.

    Commands log to stderr, because stdout is for their output. A command that serves
    until it is stopped has no output: it sets `LONG_RUNNING`, and logs to stdout.
    """

    @property
    def stream(self) -> TextIO:
        """The stream for the next line."""
        command = click.get_current_context(silent=True)
        return (
            sys.stderr if command and LONG_RUNNING not in command.meta else sys.stdout
        )

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Ignore a fixed stream."""


def init_app(config: Config, own: Any, models: MetaData) -> None:
    """Log to stdout, without the secrets in the settings and the columns of models."""
    secrets = [
        *redaction.secrets_of(config),
        *(redaction.secrets_of(own) if own else ()),
    ]
    shape.configure(config, redaction.names_of(models), secrets)
    configure(config.log_level, readable=config.environment != "production")


def configure(level: str, *, readable: bool) -> None:
    """Use the same format for lines of the standard library and of structlog."""
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
            # Python's own format: Rich's is slow, and shows local variables.
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]


def _for_machines() -> list[Processor]:
    return [
        # Without local variables, which may contain what must not be logged.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
        _drop_details,
        shape,
        _as_json,
    ]


class Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats the lines of the standard library; structlog's are already finished."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return record.msg if hasattr(record, "finished") else super().format(record)


def _finished(_: object, __: str, line: Any) -> Any:
    """Pass a line to the standard library unchanged."""
    return (line,), {"extra": {"finished": True}}


def _as_json(_: object, __: str, line: EventDict) -> str:
    return encode(line)


def _drop_details(_: object, __: str, event: EventDict) -> EventDict:
    """Remove PostgreSQL's DETAIL, which quotes the row: `Key (email)=(…) exists`."""
    for raised in event.get("exception", ()):
        raised["exc_value"] = DETAIL.sub("", raised["exc_value"])
    return event


class Flood:
    """Limits how many lines of one kind are written, and counts the others."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lines: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._ends = 0.0

    def lets_through(self, name: str) -> bool:
        """Count a line, and return whether to write it."""
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
        """Log how many lines were left out since the last time."""
        with self._lock:
            left_out, self._left_out = self._left_out, Counter()
        for name, times in left_out.items():
            log.warning("lines_left_out", of=name, count=times)


flood = Flood()
