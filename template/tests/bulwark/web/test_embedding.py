"""`@embeds`: one view gets the headers that it needs, and no other view does."""

import re
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask

from bulwark import settings
from bulwark.web import access_matrix, headers
from bulwark.web.access import public
from bulwark.web.embedding import DIRECTIVES, FEATURES, Embeds, EmbedsError, embeds
from bulwark.web.rate_limits import limit
from tests.bulwark.web.test_headers import csp
from tests.conftest import ROOT, Visitor

VIDEO, PAY = "https://video.example.com", "https://pay.example.com"
CREATED = re.compile(r"""createPolicy\(\s*["'`]([^"'`]+)""")
COEP, COOP = "Cross-Origin-Embedder-Policy", "Cross-Origin-Opener-Policy"
DENIED = ", ".join(f"{name}=()" for name in FEATURES)


def declared(*frames: str, **options: Any) -> Embeds:
    """Return what a decorator declares."""
    view = embeds(*frames, **options)(lambda: "")
    return view.embeds  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def plain(app: Flask) -> Flask:
    """A small app with the headers of the service, and no view yet."""
    with app.app_context():
        config = settings.current()
    small = Flask("tests")
    small.add_url_rule("/plain", "plain", public(lambda: "view"))
    small.extensions["config of the test"] = config
    return small


def ask(app: Flask, view: Any = None, **csp_sources: list[str]) -> dict[str, Any]:
    """Return the headers of `/plain`, or of a view."""
    if view:
        app.add_url_rule("/view", "view", public(view))
    sources = {name.replace("_", "-"): hosts for name, hosts in csp_sources.items()}
    headers.init_app(app, app.extensions["config of the test"], sources)
    path = "/view" if view else "/plain"
    found = app.test_client().get(path, base_url="https://localhost")
    nonce = re.compile(r"nonce-[\w-]+")
    return {
        **found.headers,
        "Content-Security-Policy": {k: nonce.sub("", v) for k, v in csp(found).items()},
    }


def changed(app: Flask, view: Any) -> dict[str, Any]:
    """Return how the headers of a view differ from those of another one."""
    with_view = ask(app, view)
    other = app.test_client().get("/plain", base_url="https://localhost")
    policy = csp(other)
    own = with_view.pop("Content-Security-Policy")
    scripts = own.pop("script-src").replace("''", "").strip()
    return {
        **{k: v for k, v in with_view.items() if other.headers.get(k) != v},
        **{k: v for k, v in own.items() if policy.get(k) != v},
        **({"script-src": scripts} if scripts else {}),
    }


def test_a_frame_changes_two_headers_of_its_view_only(plain: Flask):
    assert changed(plain, embeds(VIDEO)(lambda: "view")) == {
        "frame-src": VIDEO,
        COEP: "unsafe-none",
    }


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"scripts": [PAY]}, {"script-src": PAY, COEP: "credentialless"}),
        ({"styles": [PAY]}, {"style-src": f"'self' {PAY}", COEP: "credentialless"}),
        (
            {"images": [PAY]},
            {"img-src": f"'self' data: {PAY}", COEP: "credentialless"},
        ),
        ({"media": [PAY]}, {"media-src": PAY, COEP: "credentialless"}),
        ({"fonts": [PAY]}, {"font-src": f"'self' {PAY}"}),
        ({"connect": [PAY]}, {"connect-src": f"'self' {PAY}"}),
        (
            {"connect": ["wss://live.example.com:8443"]},
            {"connect-src": "'self' wss://live.example.com:8443"},
        ),
        ({"forms": [PAY]}, {"form-action": f"'self' {PAY}"}),
        ({"trusted_types": ["maps#html"]}, {"trusted-types": "maps#html"}),
        ({"popups": True}, {COOP: "same-origin-allow-popups"}),
        (
            {"features": ["geolocation"]},
            {
                "Permissions-Policy": DENIED.replace(
                    "geolocation=()", "geolocation=(self)"
                )
            },
        ),
        ({}, {}),
    ],
)
def test_each_exception_changes_what_it_needs(
    plain: Flask, options: dict[str, Any], difference: dict[str, str]
):
    assert changed(plain, embeds(**options)(lambda: "view")) == difference


def test_a_feature_is_delegated_to_the_frames_beside_it(plain: Flask):
    @embeds(VIDEO)
    @embeds(PAY, features=["payment"])
    @limit("1000 per minute")
    def view() -> str:
        return "view"

    difference = changed(plain, view)
    assert difference["frame-src"].split() == [PAY, VIDEO]
    assert difference["Permissions-Policy"] == DENIED.replace(
        "payment=()", f'payment=(self "{PAY}")'
    )


def test_exceptions_of_a_view_add_up_with_those_of_the_service(plain: Flask):
    view = embeds(images=[PAY, VIDEO], trusted_types=["maps"])(lambda: "view")
    policy = ask(plain, view, img_src=[VIDEO], trusted_types=["charts"])
    assert policy["Content-Security-Policy"]["img-src"] == f"'self' data: {VIDEO} {PAY}"
    assert policy["Content-Security-Policy"]["trusted-types"] == "charts maps"


def test_a_view_of_a_blueprint_embeds_too(plain: Flask):
    blueprint = Blueprint("shop", __name__)
    blueprint.get("/view")(embeds(VIDEO)(public(lambda: "view")))
    plain.register_blueprint(blueprint)
    ask(plain)
    answer = plain.test_client().get("/view", base_url="https://localhost")
    assert csp(answer)["frame-src"] == VIDEO


def test_another_app_in_the_process_has_its_own_policy(plain: Flask):
    view = embeds(VIDEO)(lambda: "view")
    assert "img.example.com" in str(
        ask(plain, view, img_src=["https://img.example.com"])
    )
    other = Flask("other")
    other.extensions |= plain.extensions
    assert "img.example.com" not in str(ask(other, view))


@pytest.mark.parametrize(
    "source",
    [
        *("http://video.example.com", "//video.example.com", "video.example.com"),
        *("https://*.example.com", "https://*", "*", "https:", "https://com"),
        *("https://video.example.com/", "https://video.example.com/embed"),
        *("https://user@video.example.com", "https://VIDEO.example.com"),
        *("data:", "blob:", "'self'", "'unsafe-inline'", "'unsafe-eval'", "'none'"),
        *("'strict-dynamic'", "'nonce-x'", "", " ", "wss://video.example.com"),
        *("https://video.example.com; script-src *", "https://a.example,b.example"),
        *("https://video.example.com 'unsafe-inline'", "https://a.example\r\nX: y"),
        *("https://video.example.com\n", "https://vidéo.example.com"),
    ],
)
@pytest.mark.parametrize("kind", DIRECTIVES)
def test_only_a_whole_https_origin_is_accepted(kind: str, source: str):
    if kind == "connect" and source.startswith("wss:"):
        return
    options: dict[str, Any] = {kind: [source]}
    with pytest.raises(EmbedsError, match="only a whole origin"):
        embeds(source) if kind == "frames" else embeds(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"features": ["fullscreen"]},
            "the feature 'fullscreen'.*`allow` of the frame",
        ),
        ({"features": ["camera=*, payment"]}, "the feature"),
        ({"trusted_types": ["'allow-duplicates'"]}, "is not a name"),
        ({"trusted_types": ["*"]}, "is not a name"),
        ({"trusted_types": ["a; script-src *"]}, "is not a name"),
        ({"trusted_types": [""]}, "is not a name"),
        ({"default-src": [PAY]}, "has no 'default-src'"),
        ({"base": [PAY]}, "has no 'base'.*connect, fonts"),
        ({"frames": [PAY]}, "without a name"),
        ({"scripts": PAY}, r"needs a list: scripts=\['https://pay"),
        ({"features": "payment"}, r"needs a list: features=\['payment'\]"),
        ({"trusted_types": "maps"}, "needs a list"),
    ],
)
def test_an_unsafe_or_unknown_exception_stops_the_start(
    options: dict[str, Any], message: str
):
    with pytest.raises(EmbedsError, match=message):
        embeds(**options)


def test_each_policy_that_a_script_of_the_team_creates_is_declared(
    app: Flask, visitor: Visitor
):
    """Browsers refuse others: name each in `CSP_SOURCES` or `@embeds`."""
    declared = set(csp(visitor.get("/nowhere"))["trusted-types"].split())
    for view in app.view_functions.values():
        declared.update(getattr(view, "embeds", Embeds()).trusted_types)
    files = [*ROOT.glob("app/**/*.js"), *ROOT.glob("app/**/*.html")]
    assert undeclared(files, declared) == []


def undeclared(files: list[Path], declared: set[str]) -> list[str]:
    """Return the policies that scripts create, but nothing declares."""
    return [
        f"{path}: createPolicy({name!r})"
        for path in files
        for name in CREATED.findall(path.read_text(encoding="utf-8"))
        if name not in declared
    ]


def test_a_policy_that_nothing_declares_is_found(tmp_path: Path):
    script = tmp_path / "news.js"
    script.write_text('trustedTypes?.createPolicy("news", {}); createPolicy(name, {})')
    assert undeclared([script], {"news"}) == []
    assert undeclared([script], set()) == [f"{script}: createPolicy('news')"]


def test_a_reviewer_sees_each_exception(app: Flask, monkeypatch: pytest.MonkeyPatch):
    view = embeds(
        VIDEO, features=["camera"], trusted_types=["maps"], popups=True, images=[PAY]
    )(public(lambda: ""))
    monkeypatch.setitem(app.view_functions, "health.live", view)
    (text, _) = access_matrix.files(app).values()
    (line,) = [line for line in text.splitlines() if "/healthz" in line]
    assert line.partition("/healthz")[2].split("  ")[1:] == [
        f"frames: {VIDEO}",
        f"images: {PAY}",
        "features: camera",
        "trusted types: maps",
        "popups",
    ]
