"""A real server of S3-compatible storage: rclone, over TLS."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import trustme

from tests.support.servers import free_port, running, wait_for_port

ACCESS_KEY, SECRET = "AKIAOFTESTS", "sec/ret+of=tests"
NAME = "files-of-tests"


def folder_of_rclone() -> Path:
    """Return what to add to PATH; the package brings the program, not a command."""
    package = find_spec("rclone_api")
    assert package
    assert package.origin
    return Path(package.origin).parent / "bin"


class BucketServer:
    """A server with one bucket: `with BucketServer(folder).running() as server: …`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.files = folder / "buckets" / NAME
        self.files.mkdir(parents=True)
        self.authority = folder / "authority.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        self._process = ExitStack()

    @property
    def url(self) -> str:
        """The value of APP_UPLOADS_URL."""
        place = f"127.0.0.1:{self.port}/{NAME}?region=us-east-1"
        return f"https://{ACCESS_KEY}:{SECRET}@{place}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        self._start()
        try:
            yield self
        finally:
            self._process.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections while the block lasts."""
        self._process.close()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        process = self._process.enter_context(
            running(
                *(folder_of_rclone() / "rclone", "serve", "s3", self.files.parent),
                *(f"--addr=127.0.0.1:{self.port}", "--dir-cache-time=0"),
                f"--auth-key={ACCESS_KEY},{SECRET}",
                *("--cert", self.folder / "certificate.pem"),
                *("--key", self.folder / "key.pem"),
                log=self.folder / "rclone",
                env=os.environ | {"RCLONE_CONFIG": "/dev/null"},
            )
        )
        wait_for_port(self.port, process)
