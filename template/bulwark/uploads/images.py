"""Rewriting images, so that only the pixels stay.

This removes the place where a photo was taken, and code for programs that read the file
as another type. It requires Pillow, which services that use it add to their
dependencies.
"""

import threading
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

from flask import abort

MOST_PIXELS = 25_000_000  # about 100 MB while the image is rewritten
IN_MEMORY = 500 * 1024  # bytes
FORMATS = {
    "image/gif": "GIF",
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
}
KEPT = "transparency"  # part of a palette, not metadata

# One image at a time in each process bounds the memory.
_one_at_a_time = threading.Lock()


def rewritten(file: IO[bytes], name: str, media_type: str, folder: str) -> IO[bytes]:
    """Return a new file with the pixels of an image, upright, at its beginning.

    Only the first picture of an animation stays.

    Args:
        file: the image, at its beginning.
        name: its name, for the reason of a refusal.
        media_type: its type, which stays the same.
        folder: where the new file waits on the disk.

    Raises:
        RuntimeError: Pillow is not installed.
    """
    if media_type not in FORMATS:
        abort(415, f"{name} is not a GIF, JPEG, PNG or WebP image.")
    image_module, operations = _pillow()
    broken = (OSError, SyntaxError, ValueError, image_module.DecompressionBombError)
    target = SpooledTemporaryFile(IN_MEMORY, dir=folder)  # noqa: SIM115
    with _one_at_a_time:
        try:
            with image_module.open(file, formats=[FORMATS[media_type]]) as image:
                if image.width * image.height > MOST_PIXELS:
                    target.close()
                    megapixels = MOST_PIXELS // 10**6
                    abort(413, f"{name} has more than {megapixels} megapixels.")
                upright = operations.exif_transpose(image)
            upright.info = {k: v for k, v in upright.info.items() if k == KEPT}
            upright.save(target, FORMATS[media_type])
        except broken:
            target.close()
            abort(415, f"{name} is a broken image.")
    target.seek(0)
    return cast(IO[bytes], target)


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps  # noqa: PLC0415  is the team's to install
    except ModuleNotFoundError as error:
        raise RuntimeError(
            '`rewrite_images` needs "pillow>=11" in your dependencies'
        ) from error
    return Image, ImageOps
