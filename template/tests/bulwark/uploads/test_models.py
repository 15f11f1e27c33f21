"""What a model has to declare."""

from typing import Any

import pytest

from bulwark import Upload


def declare(**content: Any) -> type:
    return type("Scan", (Upload,), content)


def test_a_model_that_does_not_say_who_may_read_is_refused():
    with pytest.raises(TypeError, match="readable_by"):
        declare(accepts=(".pdf",))


@pytest.mark.parametrize("accepts", [(), ".pdf", (".gz",), (".PDF",), ("pdf",)])
def test_a_model_that_does_not_say_what_it_accepts_is_refused(accepts: Any):
    with pytest.raises(TypeError, match="accepts"):
        declare(accepts=accepts, readable_by=lambda *_: True)


@pytest.mark.parametrize("size", ["10", "ten MB", "10 mb", "-1 MB"])
def test_a_size_that_is_none_is_refused(size: str):
    with pytest.raises(ValueError, match="is not a size"):
        declare(accepts=(".pdf",), readable_by=lambda *_: True, max_size=size)
