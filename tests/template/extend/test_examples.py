"""docs/extend.md: each example alone."""

import os
import socket
import ssl
import tomllib
from pathlib import Path

import pytest

from tests.support.guide import (
    CSP,
    DEPENDENCY,
    INPUT,
    JOB,
    MODEL,
    NGINX,
    PAGES,
    PERMISSION,
    SETTING,
    STYLE,
    USER,
    Service,
)
from tests.support.proofs import (
    BOOKS_FOR_BOOKKEEPERS,
    COMPANY_OF_THE_USER,
    EXPENSES,
    IMAGES_FROM_ELSEWHERE,
    INVOICE,
    PAGES_OF_INVOICES,
    REPORT,
    STYLE_OF_AMOUNTS,
)
from tests.support.servers import Nginx
from tests.support.visitor import exchange


def test_a_team_adds_a_column_and_a_relationship_to_the_user(team: Service) -> None:
    seed = team.migrations()
    team.follow(USER)
    assert len(team.migrations() - seed) == 1
    team.is_fully_migrated()
    team.proves(COMPANY_OF_THE_USER)


def test_a_team_adds_a_model_with_a_migration(team: Service) -> None:
    seed = team.migrations()
    team.follow(MODEL)
    assert len(team.migrations() - seed) == 1
    team.proves(INVOICE)


def test_a_team_adds_a_blueprint_with_pages(team: Service) -> None:
    team.follow(PAGES)
    team.proves(INVOICE, PAGES_OF_INVOICES)


def test_a_team_adds_a_permission_and_a_role(team: Service) -> None:
    team.follow(PERMISSION)
    team.proves(INVOICE, BOOKS_FOR_BOOKKEEPERS)


def test_a_team_adds_a_setting_with_validation(team: Service) -> None:
    team.follow(SETTING)
    show = "import wsgi; print(wsgi.app.config['PAYMENT_DAYS'])"
    assert team.python(show, APP_PAYMENT_DAYS="14") == "14"
    refusal = team.refusal("bin/flask", "routes", APP_PAYMENT_DAYS="soon")
    assert team.text(SETTING) in refusal


def test_a_team_adds_a_source_to_the_policy(team: Service) -> None:
    team.follow(CSP)
    team.proves(IMAGES_FROM_ELSEWHERE)


def test_a_team_adds_a_style(team: Service) -> None:
    team.follow(STYLE)
    team.proves(STYLE_OF_AMOUNTS)


@pytest.mark.needs("nginx")
def test_a_team_adds_an_nginx_location(team: Service, tmp_path: Path) -> None:
    team.follow(NGINX)
    answers = tomllib.loads((team.folder / "service.toml").read_text())
    domain, slug = answers["domain"], answers["slug"]
    nginx = Nginx(team.folder, domain, slug, tmp_path / "nginx")
    trust = ssl.create_default_context(cafile=str(nginx.certificate))
    with (
        nginx.running(),
        socket.create_connection(("127.0.0.1", nginx.ports[443])) as plain,
        trust.wrap_socket(plain, server_hostname=domain) as stream,
    ):
        robots = exchange(stream, "GET", "/robots.txt", headers={"Host": domain})
    assert robots.body == "User-agent: *\nDisallow: /invoices/\n"
    assert robots.headers["X-Content-Type-Options"] == "nosniff"


def test_a_team_adds_a_dependency(team: Service) -> None:
    read = "from app.suppliers import number_of; print(number_of(b'<I><ID>7</ID></I>'))"
    production = {"UV_PROJECT_ENVIRONMENT": str(team.folder / "production")}
    team.follow(DEPENDENCY)
    assert team.python(read) == "7"
    # Tools of development bring this package too, so look without them.
    uv = os.environ.get("UV", "uv")
    team.run(uv, "sync", "--frozen", "--no-group=dev", **production)
    assert team.run("production/bin/python", "-c", read).strip() == "7"


def test_a_team_takes_a_form_json_and_a_file(team: Service) -> None:
    team.follow(INPUT)
    team.proves(EXPENSES)


def test_a_team_adds_a_limit_a_job_and_an_email(team: Service) -> None:
    team.follow(JOB)
    team.proves(REPORT)
