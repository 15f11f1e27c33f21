"""A form with files: what it shows, refuses and stores."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import encode_multipart

from tests.bulwark.uploads.conftest import Owner, names_in
from tests.bulwark.uploads.contents import PDF, PNG

FORM = "/papers/form"


def fill(owner: Owner, *files: tuple[str, bytes], title: str = "Plan"):
    """Send the form as a browser does; return the response."""
    data: MultiDict[str, Any] = MultiDict({"title": title})
    data["csrf_token"] = owner.visitor.csrf_token(FORM)
    for name, content in files:
        data.add("paper", FileStorage(BytesIO(content), name))
    headers = {"Referer": "https://localhost" + FORM}
    boundary, body = encode_multipart(data)
    kind = f"multipart/form-data; boundary={boundary}"
    return owner.visitor.client.post(
        FORM, data=body, headers=headers, content_type=kind
    )


def test_a_form_with_files_is_sent_as_such_and_says_what_it_accepts(owner: Owner):
    page = owner.visitor.get(FORM).text
    assert '<form method="post" enctype="multipart/form-data">' in page
    assert 'accept=".csv,.docx,.jpg,.pdf,.png,.txt,.zip"' in page
    assert " multiple" in page
    assert "At most 3 files: CSV, DOCX, JPG, PDF, PNG, TXT or ZIP" in page
    assert "at most 2.0 MB each" in page


def test_the_files_of_a_valid_form_are_stored(owner: Owner, papers: Path):
    response = fill(owner, ("a.pdf", PDF), ("b.png", PNG))
    assert [row["filename"] for row in response.get_json()] == ["a.pdf", "b.png"]
    assert len(names_in(papers)) == 2
    assert owner.get(response.get_json()[0]["id"]).data == PDF


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "Choose a paper."),
        ([("", b"")], "Choose a paper."),
        ([("page.html", b"<script>")], "Send one of these types: .csv"),
        ([("photo.png", PDF)], "photo.png"),
        ([("a.pdf", PDF), ("b.exe", b"MZ")], "b.exe has another type"),
        ([("a.txt", b"x" * 2_000_001)], "a.txt is too large"),
        ([("a.txt", b"x")] * 4, "Send 3 files at most."),
    ],
)
def test_a_refused_file_is_a_message_at_its_field(
    owner: Owner, papers: Path, files: list[tuple[str, bytes]], reason: str
):
    page = fill(owner, *files, title="My plan").text
    error = page.partition('<small class="error" id="paper-note">')[2]
    assert reason in error.partition("</small>")[0]
    assert 'href="#paper"' in page
    assert 'value="My plan"' in page
    assert names_in(papers) == []


def test_no_file_is_stored_if_another_field_is_wrong(owner: Owner, papers: Path):
    page = fill(owner, ("a.pdf", PDF), title="").text
    assert "Enter a title." in page
    assert names_in(papers) == []


def test_a_text_in_place_of_a_file_is_no_file(owner: Owner):
    owner.visitor.get(FORM)
    page = owner.visitor.submit(FORM, {"title": "Plan", "paper": "a.pdf"}).text
    assert "Choose a paper." in page
