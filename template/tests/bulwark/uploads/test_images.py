"""Pictures that are rewritten: their pixels stay, and nothing else."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from bulwark.uploads import images
from tests.bulwark.uploads.conftest import Owner, names_in
from tests.bulwark.uploads.contents import PNG

Image: Any = pytest.importorskip("PIL.Image", reason="needs Pillow, an option")
SECRET = b"48.2082 N, 16.3738 E"
SCRIPT = b"<script>alert(1)</script>"


def picture(kind: str, **options: Any) -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 20), "red").save(file, kind, **options)
    return file.getvalue()


def send(owner: Owner, name: str, content: bytes) -> Any:
    return owner.send((name, content), path="/papers/pictures")


def kept(owner: Owner, name: str, content: bytes) -> bytes:
    response = send(owner, name, content)
    assert response.status_code == 200, response.text
    return bytes(owner.get(response.get_json()[0]["id"]).data)


def test_the_place_of_a_photo_and_what_follows_it_go(owner: Owner):
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()  # the description
    exif[0x0112] = 6  # the camera was turned
    sent = picture("JPEG", exif=exif, comment=SECRET) + SCRIPT
    stored = kept(owner, "photo.jpg", sent)
    assert SECRET in sent
    assert SECRET not in stored
    assert SCRIPT not in stored
    with Image.open(BytesIO(stored)) as shown:
        assert (shown.format, shown.size) == ("JPEG", (20, 40))


def test_a_script_after_a_png_goes(owner: Owner):
    assert SCRIPT not in kept(owner, "photo.png", picture("PNG") + SCRIPT)


def test_other_files_stay_as_they_are(owner: Owner):
    assert kept(owner, "a.txt", b"x") == b"x"


@pytest.mark.parametrize("content", [PNG[:40], PNG[:16] + b"\xff" * 40])
def test_a_broken_picture_is_refused(owner: Owner, papers: Path, content: bytes):
    response = send(owner, "photo.png", content)
    assert (response.status_code, names_in(papers)) == (415, [])


def test_a_picture_with_too_many_pixels_is_refused(
    owner: Owner, papers: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(images, "MOST_PIXELS", 799)
    response = send(owner, "photo.png", picture("PNG"))
    assert (response.status_code, names_in(papers)) == (413, [])
