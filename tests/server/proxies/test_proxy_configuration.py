"""Both proxies: a changed configuration is applied whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployed import HOME, LIVE, NAME
from tests.support.load import Load
from tests.support.machine import NEEDS_MACHINE
from tests.support.proxied import Site

pytestmark = NEEDS_MACHINE


@pytest.fixture
def mistake(site: Site) -> Iterator[Path]:
    """Return a file of the team's that ought not to be there."""
    path = site.path(f"{HOME}/current/app/{site.proxy}/mistake.conf")
    yield path
    path.unlink(missing_ok=True)
    assert site.apply().returncode == 0


@pytest.mark.parametrize("kind", ["syntax", "log", "certificate"])
def test_a_mistake_of_the_team_is_refused_and_the_old_site_serves_on(
    site: Site, mistake: Path, kind: str
) -> None:
    nowhere = "/nowhere/at/all"
    mistake.write_text(
        {
            "nginx-syntax": "This is no directive;\n",
            "nginx-log": f"access_log {nowhere};\n",
            "nginx-certificate": f"ssl_certificate {nowhere};\n",
            "apache-syntax": "This is no directive\n",
            "apache-log": f"CustomLog {nowhere} common\n",
            "apache-certificate": f"SSLCACertificateFile {nowhere}\n",
        }[f"{site.proxy}-{kind}"]
    )
    done = site.apply()
    assert done.returncode == 1
    assert "mistake.conf" in done.stderr or nowhere in done.stderr
    assert "still serves" in done.stderr
    assert site.get("/healthz").status == 200
    # What a restart would find is the old site, too.
    site.run({"nginx": "nginx", "apache": "apachectl"}[site.proxy], "-t")
    assert len(list(site.path(f"/etc/{site.unit}").glob(f"{NAME}.*"))) == 1


def test_a_key_of_another_certificate_is_refused(site: Site) -> None:
    key = site.path(f"{LIVE}/privkey.pem")
    right = key.read_text()
    try:
        site.run(
            "openssl",
            "ecparam",
            "-genkey",
            "-name",
            "prime256v1",
            "-out",
            f"{LIVE}/privkey.pem",
        )
        assert site.apply().returncode == 1
        assert site.get("/healthz").status == 200
    finally:
        key.write_text(right)
    assert site.apply().returncode == 0


def test_a_reload_drops_no_request(site: Site) -> None:
    with Load(site, visitors=4) as load:
        for _ in range(3):
            load.wait_for(100)
            assert site.apply().returncode == 0
        load.wait_for(100)
    assert load.dropped == []
    assert load.answered >= 400


def test_the_proxy_follows_the_link_to_the_release(site: Site) -> None:
    """What is at the socket answers, as soon as the link leads there."""
    current = site.path(f"{HOME}/current")
    serving = current.readlink()
    nowhere = current.with_name("releases") / "nowhere"
    nowhere.mkdir()
    try:
        site.run("ln", "-sfn", "releases/nowhere", f"{HOME}/current")
        assert site.get("/healthz").status == 503
    finally:
        site.run("ln", "-sfn", str(serving), f"{HOME}/current")
        nowhere.rmdir()
    assert site.get("/healthz").status == 200
