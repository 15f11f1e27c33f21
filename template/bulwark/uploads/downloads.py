"""Sending stored files to users whom the model allows, so that no browser runs them."""

from flask import Response, abort, send_file
from flask_login import current_user

from bulwark.observability.logging import log
from bulwark.uploads import storage
from bulwark.uploads.models import Upload
from bulwark.uploads.storage import StorageError
from bulwark.web import headers


def send_upload(upload: Upload) -> Response:
    """Return a response with a stored file, or 404 unless the user may read it.

    The browser saves the file, and never runs it or shows it as a page. An `<img>` in
    your own pages shows an image.

    Args:
        upload: the row, whose `readable_by` decides.
    """
    if not upload.readable_by(current_user):
        abort(404)
    try:
        file = storage.current().open(upload.storage_name)
    except FileNotFoundError:
        log.error("upload_missing", storage_name=upload.storage_name)
        abort(404)
    except StorageError as error:
        raise storage.unavailable(error) from error
    response = send_file(
        file,
        mimetype=upload.media_type,
        as_attachment=True,
        download_name=upload.filename,
        conditional=False,
        etag=False,
    )
    response.content_length = upload.size
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store, private"
    headers.sandbox(response)
    return response
