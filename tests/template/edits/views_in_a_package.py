"""The team moved its views into a package."""

from pathlib import Path

from tests.template.edits import replace, write

OWNER = "team"


def edit(service: Path) -> None:
    write(service / "app/site/__init__.py", "")
    (service / "app/views.py").rename(service / "app/site/views.py")
    replace(
        service / "app/__init__.py",
        "settings, views\n",
        "settings\nfrom app.site import views\n",
    )
