"""The proxy allows what each view allows."""

import re
from pathlib import Path

import pytest
from flask import Flask

from bulwark import settings
from bulwark.web import body_limits
from bulwark.web.access import public
from bulwark.web.body_limits import body_limit, parse_size


def test_a_written_file_is_that_of_the_views(app: Flask):
    """If this fails: `bin/flask body-limits --write`, then apply it on the server."""
    with app.app_context():
        for path, text in body_limits.files(app, settings.current().slug).items():
            written = path.read_text(encoding="utf-8") if path.exists() else text
            # The name in service.toml; tests may start under another one.
            assert re.sub("http://.*;", "", written) == re.sub("http://.*;", "", text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (12, 12),
        ("7 B", 7),
        ("12 MB", 12_000_000),
        ("1 MiB", 1048576),
        ("2GB", 2 * 10**9),
    ],
)
def test_a_size_is_read_as_it_is_written(text: int | str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "12", "12 mb", "12.5 MB", "-1 MB", "MB"])
def test_a_text_that_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match="is not a size"):
        body_limit(text)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/expenses/<int:expense_id>/receipt", "/expenses/4711/receipt"),
        ("/files/<path:name>", "/files/a/b.c"),
        ("/a.b-c/<number>", "/a.b-c/2026-1"),
        ("/<uuid:key>", "/0f8fad5b-d9cb-469f-a165-70867728950e"),
        ('/<any("a", b):which>/<string(length=2):code>/', "/a/de/"),
    ],
)
def test_the_proxy_finds_the_url_of_a_view(tmp_path: Path, rule: str, path: str):
    app = Flask("app", root_path=str(tmp_path))
    app.add_url_rule(rule, "view", body_limit("12 MB")(public(lambda **_: "")))
    nginx, apache = body_limits.files(app, "shop").values()
    (pattern,) = re.findall(r'location ~ "(.+)" {', nginx)
    assert re.fullmatch(pattern, path)
    assert not re.fullmatch(pattern, "/static/app.css")
    assert "client_max_body_size 12000000;\n    proxy_pass http://shop;" in nginx
    assert f'"{pattern}" body_limit=12000000\n' in apache
