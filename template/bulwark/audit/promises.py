"""Promises that the team gives up on purpose: declared once, logged at each start.

A declaration switches nothing off. It explains a deviation that the team's code or
settings bring about, and the tests of that promise follow it. `docs/promises.md` shows
how.
"""

import difflib
from collections.abc import Iterator, Mapping

import click
from flask import Flask, current_app
from flask.cli import with_appcontext

from bulwark.audit import events
from bulwark.settings import Config, ConfigurationError
from bulwark.settings.fields import Problem

PROMISES: dict[str, str] = {
    "no-browser-features": "No page can use the camera, the location and the like",
    "no-cached-pages": "No browser or proxy keeps a page of a signed-in user",
    "no-eval": "No script runs text as code",
    "no-foreign-embeds": "A page embeds files of another site only if that site agrees",
    "no-frames": "No other site shows a page of this service in a frame",
    "no-hotlinks": "No other site embeds a file of this service",
    "no-inline-styles": "A page takes no styles from its own text",
    "no-readable-cookies": "No script reads a cookie, and no other host sets one",
    "no-referrers": "No other site learns which page a user came from",
    "no-shared-windows": "A page and the windows it opens can't control each other",
    "one-query": "The base asks the database once to find out who is signed in",
    "short-sessions": "Every session ends after 30 days, even in use",
    "trusted-types": "No script makes HTML of text without a policy for it",
}
LONGEST_SESSION = 720  # hours, without giving up `short-sessions`


def init_app(app: Flask, config: Config, given_up: Mapping[str, str]) -> None:
    """Check the declared promises, and add `flask promises`.

    Args:
        app: the app.
        config: the settings, some of which need a declaration.
        given_up: the reason for each promise that the team gives up.

    Raises:
        ConfigurationError: a promise is unknown, a reason is missing, or a setting
            needs a declaration.
    """
    if problems := [*_problems(given_up), *_undeclared(config, given_up)]:
        raise ConfigurationError(config.environment, problems)
    app.extensions["bulwark_promises"] = dict(sorted(given_up.items()))
    app.cli.add_command(show)


def given_up() -> dict[str, str]:
    """Return the promises that the team gives up, each with its reason."""
    declared: dict[str, str] = current_app.extensions["bulwark_promises"]
    return declared


def log_given_up() -> None:
    """Log a warning if the team gives up promises."""
    if declared := given_up():
        reasons = [f"{name}: {reason}" for name, reason in declared.items()]
        events.emit("sys_promises_given_up", reason="; ".join(reasons))


@click.command("promises")
@with_appcontext
def show() -> None:
    """List the promises that this service gives up, and why."""
    for name, reason in given_up().items():
        click.echo(f"{name}: {PROMISES[name]}.\n    given up: {reason}")
    if not given_up():
        click.echo("This service gives up no promise.")


def _problems(given_up: Mapping[str, str]) -> Iterator[Problem]:
    for name, reason in given_up.items():
        if name not in PROMISES:
            near = difflib.get_close_matches(str(name), PROMISES, n=1)
            hint = f"did you mean {near[0]}? The" if near else "the"
            yield Problem(
                f"PROMISES contains {name!r}, which is not a promise",
                "a declaration without effect would mislead its readers",
                f"{hint} promises are {', '.join(PROMISES)}",
            )
        elif not isinstance(reason, str) or not reason.strip():
            yield Problem(
                f"PROMISES gives up {name} without a reason",
                "a reviewer could not judge it",
                f'write why, such as "{name}": "Our partner needs …"',
            )


def _undeclared(config: Config, given_up: Mapping[str, str]) -> Iterator[Problem]:
    if config.session_hours > LONGEST_SESSION and "short-sessions" not in given_up:
        yield Problem(
            f"APP_SESSION_HOURS is {config.session_hours}, more than {LONGEST_SESSION}",
            "a stolen session would remain usable for as long",
            f"set at most {LONGEST_SESSION}, or declare in PROMISES why the service"
            " gives up short-sessions (docs/promises.md)",
        )
