"""Receiving files: every file of a request is checked before any is stored."""

import errno
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from flask import abort, current_app, request
from jinja2.filters import do_filesizeformat
from werkzeug.datastructures import FileStorage

from bulwark.uploads import file_types, images, scanning, storage
from bulwark.uploads.models import FILENAME_LENGTH, Upload
from bulwark.uploads.storage import StorageError
from bulwark.web.body_limits import parse_size
from bulwark.web.input_validation import SCRATCH

Model = TypeVar("Model", bound=Upload)

FULL = (errno.ENOSPC, errno.EDQUOT)
# Windows forbids these; a shell or a page could misread some of them.
RESERVED = re.compile(r'[<>:"|?*]')
UNNAMED = "file"
EXTENSION_LENGTH = 20


def receive_uploads(field: str, model: type[Model]) -> list[Model]:
    """Store the files of a form field, and return a new row for each.

    Add the rows to the session and commit; a file without a row is deleted later. The
    list is empty if the user chose no file. If the model doesn't accept a file, the
    response is 400, 413 or 415 with the reason, and nothing is stored. If a virus
    scanner or a bucket is set up and doesn't answer, the response is 503.

    Args:
        field: the name of the form field, which may be `multiple`.
        model: your model, a subclass of `Upload`.
    """
    sent = [file for file in request.files.getlist(field) if file.filename]
    return store(check(sent, model))


def check(
    sent: Sequence[FileStorage], model: type[Model]
) -> list[tuple[FileStorage, Model]]:
    """Return files that a model accepts with their rows, or respond with an error."""
    if len(sent) > model.max_files:
        abort(400, f"Send {model.max_files} files at most.")
    return [(file, _checked(file, model)) for file in sent]


def store(checked: Sequence[tuple[FileStorage, Model]]) -> list[Model]:
    """Store files that were checked, and return their rows."""
    for file, row in checked:
        _store(file, row)
    return [row for _, row in checked]


def clean_filename(name: str) -> str:
    """Return a name without folders, invisible characters and reserved characters.

    Characters that change the direction of text could hide the true extension.
    """
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    shown = (c for c in name if unicodedata.category(c)[0] != "C")
    name = RESERVED.sub("_", " ".join("".join(shown).split())).strip(". ")
    path = PurePath(name or UNNAMED)
    extension = path.suffix if len(path.suffix) <= EXTENSION_LENGTH else ""
    stem = path.name.removesuffix(extension)
    return stem[: FILENAME_LENGTH - len(extension)] + extension


def _checked(file: FileStorage, model: type[Model]) -> Model:
    """Return the row of a file that the model accepts."""
    name, most = clean_filename(file.filename or ""), parse_size(model.max_size)
    size = file.stream.seek(0, 2)
    file.stream.seek(0)
    if size > most:
        limit = do_filesizeformat(most)
        abort(413, f"{name} is too large: a file may have at most {limit}.")
    media_type = file_types.media_type(file.stream, name, model.accepts)
    if model.rewrite_images and media_type.startswith("image/"):
        folder = str(Path(current_app.config["UPLOADS_FOLDER"], SCRATCH))
        sent, file.stream = (
            file.stream,
            images.rewritten(file.stream, name, media_type, folder),
        )
        sent.close()
        size = file.stream.seek(0, 2)
        file.stream.seek(0)
    scanning.refuse_infected(file.stream, name)
    digest = hashlib.sha256()
    while chunk := file.stream.read(file_types.CHUNK):
        digest.update(chunk)
    return model(  # type: ignore[call-arg]  # SQLAlchemy adds the constructor
        storage_name=storage.new_name(),
        filename=name,
        media_type=media_type,
        size=size,
        sha256=digest.hexdigest(),
    )


def _store(file: FileStorage, row: Upload) -> None:
    file.stream.seek(0)
    try:
        storage.current().write(row.storage_name, file.stream)
    except StorageError as error:
        raise storage.unavailable(error) from error
    except OSError as error:
        if error.errno in FULL:
            abort(503, "There is no space for files at the moment.")
        raise
