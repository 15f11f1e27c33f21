"""Backups: `flask backup` and `flask restore`, with all data in one encrypted file.

`flask restore-drill` proves each month that the newest backup can be restored.

`archive` is the format of the file; `sqlite` and `postgresql` know how to read and
replace all data of a database.
"""

from flask import Flask

from bulwark.ops.backups import commands, drill


def init_app(app: Flask) -> None:
    """Add the commands."""
    commands.init_app(app)
    drill.init_app(app)
