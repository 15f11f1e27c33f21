"""Forms of the base: the types of their fields."""

from typing import Any

import pytest

from tests.bulwark.web.team import hint, post
from tests.conftest import Visitor


@pytest.mark.parametrize("path", ["/login", "/login/passkey", "/verify"])
@pytest.mark.parametrize("target", [1, {}, [[]], True, "https://[x", "\\\\[", "//a:b"])
def test_a_next_that_is_no_url_is_400(
    visitor: Visitor, person: str, path: str, target: Any
):
    if path == "/verify":
        visitor.sign_in(person)
    assert post(visitor, path, json={"next": target}).status_code == 400
    if isinstance(target, str):
        assert post(visitor, path, data={"next": target}).status_code == 400
        assert visitor.get(path, query_string={"next": target}).status_code == 400


@pytest.mark.parametrize("field", ["email", "password", "credential"])
@pytest.mark.parametrize("value", [1, True, {}, [5], [[]], {"a": "b"}, 1.5])
def test_a_field_that_is_no_text_is_400(visitor: Visitor, field: str, value: Any):
    assert post(visitor, "/login", json={field: value}).status_code == 400


@pytest.mark.parametrize("body", ["[]", '[["email", "x"]]', '"x"', "5", "null"])
@pytest.mark.parametrize("path", ["/login", "/account/tokens", "/change-email/stop/x"])
def test_json_for_a_form_is_an_object(visitor: Visitor, path: str, body: str):
    sent = {"data": body, "content_type": "application/json"}
    assert hint(post(visitor, path, **sent)) == "Send a JSON object."
