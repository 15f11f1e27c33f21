"""A bucket of S3-compatible storage for files: the setting `uploads_url` chooses it.

It requires boto3, which only services with a bucket install. Each request ends within
the time that gunicorn gives a response, also while the storage doesn't answer.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bulwark.settings import urls
from bulwark.uploads.storage import StorageError, StoredFile, check_name, is_name

MISSING = ("NoSuchKey", "404")
# A larger file is sent in parts, which appear together; one part is in memory.
PART = 16 * 1024 * 1024  # bytes
IN_PARTS = TransferConfig(
    multipart_threshold=PART, multipart_chunksize=PART, use_threads=False
)
CHUNK = 64 * 1024
OPTIONS = Config(
    connect_timeout=2,  # seconds
    read_timeout=8,
    retries={"total_max_attempts": 2, "mode": "standard"},
    max_pool_connections=32,
    # A path is what every storage knows, and leaves one host to allow. The signature
    # covers the content's SHA-256, so the storage refuses what was damaged.
    s3={"addressing_style": "path", "payload_signing_enabled": True},
    # Not every storage knows the checksums that boto3 adds.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


class Bucket:
    """A bucket, or a folder in one."""

    def __init__(self, url: str) -> None:
        self._place = place = urls.bucket(url)
        # It connects when it is first used, so processes may fork until then.
        self._client: Any = Session().client(
            "s3",
            endpoint_url=place.endpoint,
            region_name=place.region,
            aws_access_key_id=place.access_key,
            aws_secret_access_key=place.secret_key,
            config=OPTIONS,
        )

    def write(self, name: str, source: IO[bytes]) -> None:
        """Store a file; without all of its parts, there is none."""
        key = self._key(name)
        with _errors():
            self._client.upload_fileobj(source, self._place.name, key, Config=IN_PARTS)

    def open(self, name: str) -> IO[bytes]:
        """Open a file, which is received while it is read."""
        try:
            with _errors():
                response = self._client.get_object(**self._object(name))
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and _code(cause) in MISSING:
                raise FileNotFoundError(f"The bucket has no file {name}.") from None
            raise
        return cast(IO[bytes], io.BufferedReader(_Content(response["Body"]), CHUNK))

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        with _errors():
            self._client.delete_object(**self._object(name))

    def files(self) -> Iterator[StoredFile]:
        """Yield all files, a thousand for each request."""
        prefix = self._place.prefix
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._place.name, Prefix=prefix, Delimiter="/"
        )
        with _errors():
            for page in pages:
                for found in page.get("Contents", ()):
                    name = found["Key"].removeprefix(prefix)
                    if is_name(name):
                        yield StoredFile(name, found["Size"], found["LastModified"])

    def _key(self, name: str) -> str:
        check_name(name)
        return self._place.prefix + name

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self._place.name, "Key": self._key(name)}


class _Content(io.RawIOBase):
    """The content of a file that is being received."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        with _errors():
            chunk = self._body.read(len(target))
        target[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        """End the connection, even if there is more to receive."""
        self._body.close()
        super().close()


@contextmanager
def _errors() -> Iterator[None]:
    """Turn boto3's errors into one without the URL and the key."""
    try:
        yield
    except ClientError as error:
        raise StorageError(f"The bucket of uploads refuses: {_code(error)}") from error
    except BotoCoreError as error:
        reason = type(error).__name__
        raise StorageError(f"The bucket of uploads is unreachable: {reason}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
