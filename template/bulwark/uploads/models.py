"""The columns of a model whose rows are uploaded files, and what it accepts."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from bulwark.database import UTCDateTime, utcnow
from bulwark.uploads import file_types
from bulwark.uploads.storage import NAME_LENGTH
from bulwark.web.body_limits import parse_size

FILENAME_LENGTH = 200


class Upload:
    """Columns of an uploaded file: `class Receipt(Upload, Model)`.

    Your model adds a primary key and what the file belongs to. It declares what it
    accepts, and who may read a file.

    Attributes:
        accepts: the extensions of accepted files; the content must fit, too.
        max_size: the maximum size of one file, such as "10 MB".
        max_files: the maximum number of files in one request.
        rewrite_images: whether images are rewritten, without metadata; see `images`.
        filename: the user's name for the file, cleaned; only for showing it.
        media_type: the type of its content, such as "image/png".
        size: its size in bytes.
        sha256: the hash of its content, in hexadecimal.
    """

    accepts: ClassVar[tuple[str, ...]]
    max_size: ClassVar[int | str] = "10 MB"
    max_files: ClassVar[int] = 1
    rewrite_images: ClassVar[bool] = False

    storage_name: Mapped[str] = mapped_column(String(NAME_LENGTH), unique=True)
    filename: Mapped[str] = mapped_column(String(FILENAME_LENGTH))
    media_type: Mapped[str] = mapped_column(String(100))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    uploaded_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)

    def __init_subclass__(cls, **options: Any) -> None:
        """Check the declarations.

        Raises:
            TypeError: the model doesn't declare what it accepts, or who may read it.
            ValueError: `max_size` is not a size.
        """
        super().__init_subclass__(**options)
        if cls.readable_by is Upload.readable_by:
            raise TypeError(f"{cls.__name__} needs a method readable_by(self, user)")
        file_types.check_declared(cls.__name__, getattr(cls, "accepts", ()))
        parse_size(cls.max_size)

    def readable_by(self, user: Any) -> bool:
        """Return whether a user, who may be anonymous, may download this file."""
        raise NotImplementedError
