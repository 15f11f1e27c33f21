"""`flask new NAME`: writes a model with its migration, pages, an API and tests.

The code is the team's from then on: no update changes it. It uses the facade only, as
the chapters in `docs/` do.
"""

from flask import Flask

from bulwark.ops.new import command


def init_app(app: Flask) -> None:
    """Add the command."""
    app.cli.add_command(command.new)
