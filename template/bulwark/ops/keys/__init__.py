"""`flask keys`: shows the keys, their age and what needs them, and rotates them.

`stores` lists everything that the encryption keys protect. `ages` records since when
the service has had each key. `lock` keeps a second rotation from starting.
"""

from flask import Flask

from bulwark.ops.keys import commands


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(commands.commands)
