"""One server for each proxy and each release of Debian."""

from collections.abc import Iterator

import pytest
from jinja2 import StrictUndefined, Template

from tests.conftest import ROOT
from tests.support.certificates import certify
from tests.support.deployed import ALIAS, HOME, LIVE, NAME
from tests.support.disks import installed
from tests.support.proxied import PLACES, TEAM, VIEWS, Site
from tests.support.visitor import DOMAIN


@pytest.fixture(scope="package", params=PLACES, ids="-".join)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    proxy, suite = request.param
    with Site(installed(tmp_path_factory, suite, proxy), proxy, suite) as site:
        current = site.path(f"{HOME}/current")
        for file in (ROOT / "template/deploy" / proxy).glob("*.jinja"):
            made = Template(file.read_text(), undefined=StrictUndefined)
            text = made.render(project_slug=NAME, domain=DOMAIN, aliases=[ALIAS])
            (current / "deploy" / proxy / file.stem).write_text(text)
        answers = (current / "service.toml").read_text()
        named = answers.replace("aliases = []", f'aliases = ["{ALIAS}"]')
        (current / "service.toml").write_text(named)
        team = TEAM[proxy] % {"name": NAME, "public": f"{HOME}/current/public"}
        (current / f"app/{proxy}/test.conf").write_text(team)
        if proxy == "apache":
            site.run("a2enmod", "-q", "remoteip")
        with (current / "app/views.py").open("a") as file:
            file.write(VIEWS)
        site.run("systemctl", "restart", f"{NAME}@{site.current}")
        site.path(LIVE).mkdir(parents=True)
        certify(
            DOMAIN, *(site.path(f"{LIVE}/{n}.pem") for n in ("fullchain", "privkey"))
        )
        assert site.apply().returncode == 0
        # After a mere reload the old workers answer for a moment more.
        site.run("systemctl", "restart", site.unit)
        yield site
