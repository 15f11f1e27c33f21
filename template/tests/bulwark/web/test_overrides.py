"""Overrides of templates: the service starts only if each replaces a template."""

from pathlib import Path

import pytest
from flask import Flask
from jinja2 import FileSystemLoader

from bulwark.web import overrides
from bulwark.web.overrides import UnknownTemplateError


def start(app: Flask, monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str):
    """Check the app as if `app/templates/` had these files only."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("<p>Ours.</p>\n")
    monkeypatch.setattr(app, "jinja_loader", FileSystemLoader(folder))
    overrides.init_app(app)


@pytest.mark.parametrize(
    "name", ["bulwark/facts.html", "bulwark/admin/people.html", "security/sign_in.html"]
)
def test_an_override_of_no_template_stops_the_start(
    app: Flask, monkeypatch, tmp_path: Path, name: str
):
    with pytest.raises(UnknownTemplateError, match=f"app/templates/{name} "):
        start(app, monkeypatch, tmp_path, name, "bulwark/account.html")


def test_the_error_explains_how_to_fix_it(app: Flask, monkeypatch, tmp_path: Path):
    with pytest.raises(UnknownTemplateError) as caught:
        start(app, monkeypatch, tmp_path, "bulwark/acount.html")
    assert "no page shows it" in str(caught.value)
    assert "did you mean bulwark/account.html" in str(caught.value)
    assert "bin/codemod" in str(caught.value)


def test_templates_of_the_base_and_of_flask_security_can_be_overridden(
    app: Flask, monkeypatch, tmp_path: Path
):
    names = ("bulwark/layout.html", "security/login_user.html", "security/_menu.html")
    start(app, monkeypatch, tmp_path, *names)


def test_a_teams_own_templates_have_any_name(app: Flask, monkeypatch, tmp_path: Path):
    start(app, monkeypatch, tmp_path, "home.html", "shop/facts.html")
    start(app, monkeypatch, tmp_path / "none")
