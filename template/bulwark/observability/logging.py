"""Logs: one JSON object per line in production, readable lines in development."""

import json
import logging
import re
import sys
from typing import Any, TextIO

import click
import structlog
from sqlalchemy import MetaData
from structlog.typing import EventDict, Processor

from bulwark.observability import redaction
from bulwark.settings import Config

shape = redaction.Shape()
# structlog's processors. The list is never replaced, because loggers cache it.
processors: list[Any] = []
encode = json.JSONEncoder().encode  # escapes all but ASCII: one line stays one
log = structlog.stdlib.get_logger("bulwark")

LONG_RUNNING = "bulwark.long_running"
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
    last = _readable() if readable else _json_lines()
    steps: list[Any] = [structlog.stdlib.filter_by_level, *shared, *last, _pass_through]
    processors[:] = steps
    structlog.configure(
        processors=processors,
        logger_factory=logging.getLogger,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    foreign = structlog.stdlib.PositionalArgumentsFormatter()
    without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    _replace_handler(
        Formatter(
            foreign_pre_chain=[*shared, foreign], processors=[without_meta, *last]
        )
    )
    _skip_unused_attributes()
    logging.getLogger().setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))


def _replace_handler(formatter: "Formatter") -> None:
    handler = Stdout()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, Stdout)]:
        root.removeHandler(old)
    root.addHandler(handler)


def _skip_unused_attributes() -> None:
    """Don't look up what no line contains: docs.python.org/3/howto/logging.html."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _readable() -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(),
            # Python's own format: Rich's is slow, and shows local variables.
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]


def _json_lines() -> list[Processor]:
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


def _pass_through(_: object, __: str, line: Any) -> Any:
    """Pass a line to the standard library unchanged."""
    return (line,), {"extra": {"finished": True}}


def _as_json(_: object, __: str, line: EventDict) -> str:
    return encode(line)


def _drop_details(_: object, __: str, event: EventDict) -> EventDict:
    """Remove PostgreSQL's DETAIL, which quotes the row: `Key (email)=(…) exists`."""
    for raised in event.get("exception", ()):
        raised["exc_value"] = DETAIL.sub("", raised["exc_value"])
    return event
