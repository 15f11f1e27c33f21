"""`flask keys`: which keys there are, how old they are, what needs them; rotation.

`stores` knows everything that the encryption keys protect, `ages` since when the
service has had each key, and `lock` keeps a second rotation from starting.
"""

from flask import Flask

from bulwark.ops.keys import commands


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(commands.commands)
