"""The migrations: Flask-Migrate, with one branch for the base and one for the app."""

from pathlib import Path
from typing import Any

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

MERGE = (
    "To merge migrations that were both based on the same one:"
    ' bin/flask db merge app@heads -m "join"'
)

migrate = Migrate()


def init_app(app: Flask, db: SQLAlchemy) -> None:
    """Find the migrations of the base and of the app, and add `flask db`."""
    base = Path(__file__).parents[1] / "migrations"
    # Flask-Migrate does not escape the folder, in which a % would begin an
    # interpolation. So this is only a name, and the function below sets the folder.
    migrate.init_app(app, db, directory="migrations")
    folders = {
        "bulwark": str(base / "versions"),
        "app": str(Path(app.root_path) / "migrations"),
    }

    @migrate.configure  # type: ignore[untyped-decorator]
    def _two_branches(alembic: Any) -> Any:
        alembic.config_file_name = str(base / "alembic.ini")
        alembic.file_config.read(alembic.config_file_name)
        alembic.file_config.defaults()["here"] = _escaped(base)
        alembic.set_main_option("script_location", _escaped(base))
        alembic.set_main_option("path_separator", "newline")
        locations = "\n".join(map(_escaped, folders.values()))
        alembic.set_main_option("version_locations", locations)
        alembic.attributes["folders"] = folders
        return alembic


def _escaped(path: str | Path) -> str:
    return str(path).replace("%", "%%")
