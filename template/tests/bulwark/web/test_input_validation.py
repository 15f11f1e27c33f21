"""Input validation: headers, paths, queries, forms and sizes, in all pages."""

from typing import Any

import pytest

from bulwark.web.input_validation import MAX_BODY
from tests.bulwark.web.team import FORM, MEGABYTE, hint, parts, post
from tests.conftest import Visitor

# --- Headers --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/login", "/account", "/nowhere", "/notes/1"])
@pytest.mark.parametrize("header", ["Basic é", "Bearer \xff", "é"])
def test_raw_bytes_in_authorization_are_400(team: Visitor, path: str, header: str):
    response = team.get(path, headers={"Authorization": header})
    assert hint(response) == "Send Authorization in ASCII."


@pytest.mark.parametrize("name", ["Referer", "Origin"])
@pytest.mark.parametrize("value", ["https://[x", "https://a:b/", "https://a:99999/"])
def test_a_header_that_is_no_url_is_400(team: Visitor, name: str, value: str):
    response = team.client.post(
        "/login",
        headers={
            "X-CSRFToken": team.csrf_token("/login"),
            "Accept": "application/json",
            name: value,
        },
    )
    assert hint(response) == f"{name} is not a URL."


@pytest.mark.parametrize(
    "referrer", ["https://www.example.com/?q=é[", "android-app://com.example/", "null"]
)
def test_a_referrer_of_another_site_is_accepted(team: Visitor, referrer: str):
    assert team.get("/login", headers={"Referer": referrer}).status_code == 200


@pytest.mark.parametrize("path", ["/login", "/static/app.css"])
@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Range"])
def test_a_date_out_of_range_is_400(team: Visitor, path: str, name: str):
    headers = {"Accept": "application/json", "Range": "bytes=0-1"}
    late = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    response = team.get(path, headers=headers | {name: late})
    assert hint(response) == f"{name} is not a date."
    response = team.get(path, headers=headers | {name: "tomorrow"})
    assert response.status_code in (200, 206)
    response.close()


def test_a_null_byte_in_a_header_is_400(team: Visitor):
    response = team.client.get(
        "/login",
        environ_overrides={"HTTP_USER_AGENT": "a\0"},
        headers={"Accept": "application/json"},
    )
    assert hint(response) == "Send headers without NUL."


def test_another_host_is_rejected_before_anything_else(team: Visitor):
    response = team.get("/login?\0", headers={"Host": "other["})
    assert response.status_code == 400
    assert "does not serve that host name" in response.text


# --- Query and path -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/notes"])
@pytest.mark.parametrize("query", ["q=%00", "%00", "q=%ff", "q=\xff", "q=%ED%A0%80"])
def test_a_query_that_is_no_text_is_400(team: Visitor, path: str, query: str):
    response = team.client.get(
        path,
        environ_overrides={"QUERY_STRING": query},
        headers={"Accept": "application/json"},
    )
    assert "text" in hint(response)


@pytest.mark.parametrize(
    "number", [2**31, 2**63 - 1, 2**63, 10**20, -(2**63) - 1, int("9" * 300)]
)
def test_an_integer_in_a_path_outside_the_range_of_ids_is_404(
    team: Visitor, number: int
):
    assert team.get(f"/notes/{number}").status_code == 404
    assert team.get("/notes/1").status_code in (200, 404)


def test_an_integer_of_thousands_of_digits_is_404(team: Visitor):
    assert team.get(f"/notes/{'9' * 5000}").status_code == 404


def test_an_infinite_number_in_a_path_is_404(team: Visitor):
    assert team.get("/temperatures/21.5").get_json() == 21.5
    assert team.get(f"/temperatures/{'9' * 400}.0").status_code == 404


def test_a_null_byte_in_a_path_is_404(team: Visitor):
    assert team.get("/notes/called/a%00").status_code == 404
    assert team.get("/nowhere%00").status_code == 404


# --- Forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/notes"])
@pytest.mark.parametrize(
    "body",
    [b"title=%00", b"title\0=1", b"title=\xff", b"title=%ff", b"title=%ed%a0%80"],
)
def test_a_form_that_is_no_text_is_400(team: Visitor, path: str, body: bytes):
    assert "text" in hint(post(team, path, data=body, content_type=FORM))


@pytest.mark.parametrize("path", ["/login", "/notes", "/drafts"])
@pytest.mark.parametrize(
    "part",
    [
        'name="title"\r\n\r\n\0',
        'name="a\0"\r\n\r\nx',
        'name="f"; filename="\0"\r\n\r\nx',
    ],
)
def test_a_null_byte_in_a_part_is_400(team: Visitor, path: str, part: str):
    assert "text" in hint(post(team, path, **parts(part)))


def test_a_part_without_a_name_is_400(team: Visitor):
    assert "a name" in hint(post(team, "/drafts", **parts("x=y\r\n\r\nx")))


def test_a_filename_is_bounded(team: Visitor):
    good, long = (parts(f'name="f"; filename="{"é" * n}"\r\n\r\nx') for n in (255, 256))
    assert post(team, "/drafts", **good).get_json() == {"fields": 0, "files": 1}
    assert "255 characters" in hint(post(team, "/drafts", **long))


def test_every_other_character_arrives(team: Visitor):
    title = "".join(map(chr, (1, 9, 10, 0x202E, 0xFFFD, 0xFFFF, 0x10FFFF))) + "é<>&"
    assert post(team, "/notes", data={"title": title}).get_json()["title"] == title
    assert post(team, "/notes", json={"title": title}).get_json()["title"] == title


# --- Sizes ----------------------------------------------------------------------------


def photo(size: int) -> dict[str, Any]:
    return parts('name="photo"; filename="a.jpg"\r\n\r\n' + "x" * size)


def test_a_view_with_its_own_limit_accepts_larger_files(team: Visitor):
    response = post(team, "/photos", **photo(2 * MEGABYTE))
    assert response.get_json() == {"name": "a.jpg", "size": 2 * MEGABYTE}


def test_a_file_over_that_limit_is_413(team: Visitor):
    assert post(team, "/photos", **photo(3 * MEGABYTE)).status_code == 413


def test_a_view_without_a_limit_accepts_no_more_than_a_form(team: Visitor):
    assert post(team, "/drafts", **photo(2 * MEGABYTE)).status_code == 413
    assert post(team, "/drafts", **photo(MAX_BODY // 2)).status_code == 200
