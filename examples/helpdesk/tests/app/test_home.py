"""Pages that anyone may read."""

import pytest

from tests.conftest import Visitor


@pytest.mark.parametrize("path", ["/", "/terms", "/tour"])
def test_the_page_opens(visitor: Visitor, path: str):
    assert visitor.get(path).status_code == 200


def test_only_the_tour_embeds_a_video(visitor: Visitor):
    host = "https://www.youtube-nocookie.com"
    policies = {
        path: visitor.get(path).headers["Content-Security-Policy"]
        for path in ("/tour", "/terms")
    }
    assert f"frame-src {host}" in policies["/tour"]
    assert host not in policies["/terms"]
