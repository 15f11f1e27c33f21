"""Files that are sent: what is accepted, what is refused, and what is then stored."""

import errno
import os
import random
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from bulwark.uploads import archives, receiving, storage
from tests.bulwark.uploads.conftest import Owner, names_in
from tests.bulwark.uploads.contents import (
    DOCX,
    DRAWING,
    JPEG,
    MACROS,
    PAGE,
    PDF,
    PNG,
    PROGRAM,
    zipped,
    zipped_link,
    zipped_list,
)

# --- Types ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("scan.pdf", PDF, "application/pdf"),
        ("photo.PNG", PNG, "image/png"),
        ("photo.jpg", JPEG, "image/jpeg"),
        ("notes.txt", "Zoë paid 12 €.\r\n".encode(), "text/plain"),
        ("list.csv", b"a,b\n1,2\n", "text/csv"),
        ("letter.docx", DOCX, archives.CONTENTS[".docx"][0]),
        ("all.zip", zipped("a.txt", "b/c.txt"), "application/zip"),
    ],
)
def test_the_type_is_that_of_the_content(
    owner: Owner, name: str, content: bytes, media_type: str
):
    response = owner.get(owner.keep(name, content))
    assert response.mimetype == media_type
    assert response.data == content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.png", PAGE),
        ("photo.png", DRAWING),
        ("photo.png", PROGRAM),
        ("photo.png", PDF),
        ("photo.jpg", PNG),
        ("scan.pdf", PAGE + PDF),
        ("scan.pdf", b""),
        ("notes.txt", PROGRAM),
        ("notes.txt", b"\xff\xfe<\0s\0"),
        ("notes.txt", b"Zo\xc3"),
        ("letter.docx", zipped("a.txt")),
        ("letter.docx", PDF),
        ("all.zip", b"PK\x03\x04" + bytes(100)),
        ("scan.pdf", DOCX),
    ],
)
def test_a_content_that_does_not_fit_the_name_is_refused(
    owner: Owner, papers: Path, name: str, content: bytes
):
    assert "content" in owner.is_refused(name, content)
    assert names_in(papers) == []


@pytest.mark.parametrize(
    "name", ["page.html", "photo.svg", "run.exe", "photo.png.html", "png", ".png"]
)
def test_a_name_with_another_extension_is_refused(owner: Owner, name: str):
    assert "one of these types" in owner.is_refused(name, PNG)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (MACROS, "without macros"),
        (zipped("[Content_Types].xml", "word/document.xml", "../x"), "stay in"),
        (zipped("/etc/passwd"), "stay in"),
        (zipped("C:\\x"), "stay in"),
        (zipped_link("/etc/passwd"), "without links"),
        (zipped(*map(str, range(archives.MOST_FILES + 1))), "files at most"),
    ],
)
def test_a_zip_file_that_harms_who_unpacks_it_is_refused(
    owner: Owner, content: bytes, reason: str
):
    name = "a.docx" if b"document.xml" in content else "a.zip"
    assert reason in owner.is_refused(name, content)


def test_a_zip_bomb_is_refused_without_unpacking_it(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "MOST_UNPACKED", 10**6)
    bomb = zipped("a", "b", content=bytes(600_000))
    assert len(bomb) < 10_000
    assert "too large when it is unpacked" in owner.is_refused("a.zip", bomb)


def test_a_zip_file_whose_list_is_too_long_is_not_read(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "MOST_DIRECTORY", 1000)
    long = zipped(*(f"{number:0100}" for number in range(20)))
    assert "lists too many" in owner.is_refused("a.zip", long)


def test_the_end_of_that_list_cannot_be_hidden(owner: Owner):
    assert "lists too many" in owner.is_refused("a.zip", zipped_list(30_000))
    assert owner.keep("a.zip", zipped_list(1000))


@pytest.mark.parametrize("at", range(68))
def test_a_damaged_zip_file_is_refused_and_breaks_nothing(at: int):
    sent = zipped("a")
    for value in (0, 1, 0x7F, 0xFF):
        damaged = bytearray(sent)
        damaged[-1 - at] = value
        with suppress(archives.RefusedArchiveError):
            archives.check(BytesIO(damaged), ".zip")


@pytest.mark.parametrize(
    ("extension", "macro"),
    [
        (".docx", "word/VBAProject.BIN"),
        (".xlsx", "xl/macrosheets/sheet1.xml"),
        (".odt", "Basic/Standard/Module1.xml"),
        (".ods", "Scripts/python/run.py"),
    ],
)
def test_a_document_with_macros_is_refused(extension: str, macro: str):
    part = archives.CONTENTS[extension][1]
    assert archives.check(BytesIO(zipped(part, "scripts.xml")), extension)
    with pytest.raises(archives.RefusedArchiveError, match="without macros"):
        archives.check(BytesIO(zipped(part, macro)), extension)


def test_a_zip_file_may_have_a_folder_of_scripts():
    assert archives.check(BytesIO(zipped("scripts/run.py")), ".zip")


# --- Sizes and counts -----------------------------------------------------------------


def test_a_file_larger_than_the_model_allows_is_refused(owner: Owner, papers: Path):
    owner.keep("notes.txt", b"x" * 2_000_000)
    assert "2.0 MB" in owner.is_refused("notes.txt", b"x" * 2_000_001)
    assert len(names_in(papers)) == 1


def test_a_request_larger_than_the_view_allows_is_refused(owner: Owner, papers: Path):
    half = ("notes.txt", b"x" * 1_600_000)
    assert owner.send(half, half).status_code == 413
    assert names_in(papers) == []


def test_a_body_without_a_length_is_limited_too(owner: Owner, papers: Path):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="paper"; filename="a.txt"\r\n\r\n'
    )
    body += b"x" * 3_000_001 + b"\r\n--x--\r\n"
    response = owner.visitor.client.post(
        "/papers/",
        data=body,
        content_type="multipart/form-data; boundary=x",
        headers={"X-CSRFToken": owner.visitor.csrf_token("/change")},
        environ_overrides={"CONTENT_LENGTH": "", "wsgi.input_terminated": True},
    )
    assert response.status_code == 413
    assert names_in(papers) == []


def test_only_files_may_be_larger_than_the_bodies_of_other_views(owner: Owner):
    response = owner.visitor.client.post(
        "/papers/",
        data=b"a&" * 600_000,
        content_type="application/x-www-form-urlencoded",
        headers={"X-CSRFToken": owner.visitor.csrf_token("/change")},
    )
    assert response.status_code == 413


def test_the_body_of_somebody_unknown_is_not_read(team_app: Flask, papers: Path):
    body = BytesIO(b"--x\r\n" + b"x" * 100_000)
    response = team_app.test_client().post(
        "/papers/",
        input_stream=body,
        content_type="multipart/form-data; boundary=x",
        content_length=100_005,
        base_url="https://localhost",
    )
    assert response.status_code == 302
    assert body.tell() == 0


def test_more_files_than_the_model_allows_are_refused(owner: Owner, papers: Path):
    many = [(f"{number}.txt", b"x") for number in range(4)]
    assert "3 files at most" in owner.send(*many).get_json()["hint"]
    assert len(owner.send(*many[:3]).get_json()) == 3


def test_if_one_file_is_refused_none_is_stored(owner: Owner, papers: Path):
    assert owner.send(("a.txt", b"x"), ("b.png", PAGE)).status_code == 415
    assert names_in(papers) == []


def test_a_form_in_which_no_file_was_chosen_stores_nothing(owner: Owner, papers: Path):
    assert owner.send(("", b"")).get_json() == []
    assert names_in(papers) == []


def test_a_large_file_waits_beside_the_uploads_and_not_in_memory(
    owner: Owner, papers: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []
    write = storage.LocalFolder.write

    def watch(self, name, source):
        seen.append((source._rolled, os.fstat(source.fileno())))
        write(self, name, source)

    monkeypatch.setattr(storage.LocalFolder, "write", watch)
    owner.keep("notes.txt", b"x" * 1_000_000)
    ((on_disk, found),) = seen
    assert on_disk
    assert found.st_dev == papers.stat().st_dev
    assert found.st_nlink == 0  # it has no name, so a crash leaves nothing


def test_a_full_disk_is_503_and_leaves_no_part(
    owner: Owner, papers: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bulwark.uploads.storage.shutil.copyfileobj", full)
    assert owner.send(("a.txt", b"x")).status_code == 503
    assert names_in(papers) == []


# --- Names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../app/views.txt", "views.txt"),
        ("C:\\Users\\zoe\\plan.txt", "plan.txt"),
        ("..\\..\\.txt", "txt"),
        ("a\u202etxt.exe", "atxt.exe"),
        ("a\r\nSet-Cookie: x.txt", "aSet-Cookie_ x.txt"),
        ('a"; filename="b.html', "a_; filename=_b.html"),
        ("  plan .txt. ", "plan .txt"),
        ("Zoe\u0308.txt", "Zo\u00eb.txt"),
        ("a" * 250 + ".txt", "a" * 196 + ".txt"),
        ("a." + "b" * 250, "a." + "b" * 198),
        ("...", "file"),
        ("/", "file"),
    ],
)
def test_a_name_is_cleaned(sent: str, shown: str):
    assert receiving.clean_filename(sent) == shown


def test_the_stored_name_has_nothing_of_the_sent_one(owner: Owner, papers: Path):
    owner.keep("../../../plan.txt", b"x")
    (path,) = (path for path in papers.rglob("*") if path.is_file())
    assert storage.is_name(path.name)
    assert path.parent.parent == papers
    assert path.stat().st_mode & 0o777 == 0o600
    assert papers.joinpath(path.name[:2]).stat().st_mode & 0o777 == 0o700


def test_the_stored_name_cannot_be_guessed():
    names = set()
    for _ in range(100):
        random.seed(4711)
        names.add(storage.new_name())
    assert len(names) == 100
    assert all(len(set(digits)) > 4 for digits in zip(*names, strict=True))


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a" * 32 + "/", "G" * 32])
def test_the_storage_takes_no_name_that_is_a_path(team_app: Flask, name: str):
    with team_app.app_context(), pytest.raises(ValueError, match="no such name"):
        storage.current().open(name)
