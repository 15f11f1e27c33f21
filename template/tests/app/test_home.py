"""Your tests. `tests/conftest.py` has visitors that sign in and submit forms."""

from tests.conftest import Visitor


def test_the_home_page_opens(visitor: Visitor):
    assert visitor.get("/").status_code == 200
