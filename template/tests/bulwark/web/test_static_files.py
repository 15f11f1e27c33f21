"""Addresses of files name their content; `flask collect` writes what a proxy serves."""

import gzip
import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, url_for
from flask.testing import FlaskCliRunner

from bulwark.web import static_files


@pytest.fixture
def collected(app: Flask, tmp_path: Path) -> Path:
    done = FlaskCliRunner(app).invoke(args=["collect", str(tmp_path / "public")])
    assert done.exit_code == 0, done.output
    return tmp_path / "public"


@pytest.fixture
def style(app: Flask) -> Iterator[Path]:
    """Return a file of the team's that a test may change."""
    path = Path(app.static_folder or "") / "test-of-assets.css"
    path.write_text("a { color: red }")
    yield path
    path.unlink()


def address(app: Flask, filename: str) -> str:
    with app.test_request_context():
        return url_for("static", filename=filename)


def test_the_address_of_a_file_changes_with_its_content(
    app: Flask, style: Path
) -> None:
    before = address(app, style.name)
    assert re.fullmatch(r"/static/test-of-assets\.css\?v=[0-9a-f]{16}", before)
    assert address(app, style.name) == before
    style.write_text("a { color: blue }")
    assert address(app, style.name) != before


def test_a_file_that_is_not_there_has_a_plain_address(app: Flask) -> None:
    assert address(app, "none.css") == "/static/none.css"


def test_every_file_of_a_page_is_collected_as_the_service_serves_it(
    app: Flask, collected: Path
) -> None:
    client = app.test_client()
    page = client.get("/login", base_url="https://localhost").text
    targets = re.findall(r'(?:href|src)="(/static/[^"?]+)\?v=', page)
    assert len(targets) > 3
    for target in targets:
        with client.get(target, base_url="https://localhost") as answer:
            assert (collected / target.lstrip("/")).read_bytes() == answer.data


def test_a_script_that_is_not_the_one_the_page_meant_does_not_run(app: Flask) -> None:
    client = app.test_client()
    page = client.get("/login", base_url="https://localhost").text
    scripts = re.findall(r"<script (.*?)>", page)
    assert scripts
    for script in scripts:
        named = dict(re.findall(r'(\w+)="([^"]*)"', script))
        with client.get(named["src"], base_url="https://localhost") as answer:
            digest = b64encode(hashlib.sha256(answer.data).digest()).decode()
        assert named["integrity"] == f"sha256-{digest}"


def test_text_is_packed_without_loss_and_the_same_each_time(collected: Path) -> None:
    packed = sorted(collected.rglob("*.gz"))
    assert {path.with_suffix("").suffix for path in packed} >= {".css", ".js", ".svg"}
    for path in packed:
        content = path.with_suffix("").read_bytes()
        assert gzip.decompress(path.read_bytes()) == content
        assert path.read_bytes() == gzip.compress(content, mtime=0)


def test_a_page_for_each_error_looks_like_the_service(
    app: Flask, collected: Path
) -> None:
    pages = {path.stem for path in (collected / "errors").iterdir()}
    assert pages == {str(code) for code in static_files.SAID_BY_PROXY}
    for path in (collected / "errors").iterdir():
        page = path.read_text()
        assert f"Error {path.stem}" in page
        assert "/static/app.css?v=" in page
        # The client may be signed in, or the service down: it needs neither.
        assert "<nav" not in page
        assert "<script" not in page


def test_what_was_collected_before_is_replaced(app: Flask, collected: Path) -> None:
    (collected / "static/old.css").write_text("old")
    done = FlaskCliRunner(app).invoke(args=["collect", str(collected)])
    assert done.exit_code == 0, done.output
    assert not (collected / "static/old.css").exists()


def test_a_folder_of_something_else_is_left_alone(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    done = FlaskCliRunner(app).invoke(args=["collect", str(tmp_path)])
    assert done.exit_code == 1
    assert "contains other files" in done.output
    assert (tmp_path / "letters.txt").exists()
