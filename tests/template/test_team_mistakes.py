"""Mistakes in the team's half stop the start, and are named."""

from pathlib import Path

import pytest

from tests.support.guide import (
    Service,
    copy_of,
    merge,
)


@pytest.fixture
def service(ready: Path, tmp_path: Path) -> Service:
    return copy_of(ready, tmp_path / "service")


BARE_ROUTE = """
@blueprint.get("/bare")
def bare() -> ResponseReturnValue:
    return ""
"""


UNKNOWN_PERMISSION = """
from bulwark import permission

@blueprint.get("/odd")
@permission("odd:read")
def odd() -> ResponseReturnValue:
    return ""
"""


UNKNOWN_IN_A_ROLE = """
ROLES: dict[str, list[str]] = {"clerk": ["odd:read"]}
"""


TAKEN_SETTING = """
from bulwark import setting

@dataclass(frozen=True, kw_only=True)
class Settings:
    mail_url: str = setting("where mail leaves")
"""


WRONG_SOURCES = """
CSP_SOURCES: dict[str, list[str]] = {
    "script-src": ["'unsafe-inline'"],
    "image-src": ["https://images.example.com"],
}
"""


@pytest.mark.parametrize(
    ("mistakes", "reasons"),
    [
        (
            {
                "app/views.py": BARE_ROUTE + UNKNOWN_PERMISSION,
                "app/permissions.py": UNKNOWN_IN_A_ROLE,
            },
            [
                "/bare (app.bare) does not declare who may call it",
                "/odd (app.odd) requires 'odd:read', which is not declared",
                "the role 'clerk' grants 'odd:read', which is not declared",
            ],
        ),
        (
            {"app/settings.py": TAKEN_SETTING},
            ["APP_MAIL_URL is declared by app/ and by bulwark/"],
        ),
        ({"app/settings.py": WRONG_SOURCES}, ["'unsafe-inline'", "image-src"]),
    ],
    ids=["access", "a taken setting", "sources"],
)
def test_mistakes_stop_the_start_and_are_named(
    service: Service, mistakes: dict[str, str], reasons: list[str]
) -> None:
    for file, added in mistakes.items():
        path = service.folder / file
        path.write_text(merge(path.read_text(), added))
    refusal = service.refusal("bin/flask", "routes")
    for reason in reasons:
        assert reason in refusal


def test_a_base_that_imports_the_app_is_found(service: Service) -> None:
    with (service.folder / "bulwark/ops/health.py").open("a") as file:
        file.write("\nimport app.views\n")
    refusal = service.refusal(".venv/bin/lint-imports")
    assert "bulwark.ops.health -> app.views" in refusal
