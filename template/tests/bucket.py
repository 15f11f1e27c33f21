"""A real server of S3-compatible storage, rclone, for tests that need a bucket."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

RCLONE = shutil.which("rclone")
ACCESS_KEY, SECRET = "AKIAOFTESTS", "sec/ret+of=tests"
NAME, FOLDER = "files-of-tests", "of/service"
PATIENCE = 30  # seconds


class BucketServer:
    """A server with one bucket, whose files are in a folder."""

    def __init__(self, folder: Path) -> None:
        self._root, self._log = folder / "buckets", folder / "rclone.log"
        self.files = self._root / NAME / FOLDER
        self.files.mkdir(parents=True)
        self._address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        """Listen where it did before, if it did."""
        command = [
            *(RCLONE or "rclone", "serve", "s3", f"--addr={self._address}"),
            *(f"--auth-key={ACCESS_KEY},{SECRET}", "--dir-cache-time=0"),
            str(self._root),
        ]
        with self._log.open("w") as log:
            environment = os.environ | {"RCLONE_CONFIG": "/dev/null"}
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment
            )
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"http://([\d.:]+)", self._log.read_text())):
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.02)
        self._address = found[1]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)

    def url(self, secret: str = SECRET, bucket: str = NAME) -> str:
        """Return the value of APP_UPLOADS_URL."""
        place = f"{self._address}/{bucket}/{FOLDER}?region=us-east-1"
        return f"http://{ACCESS_KEY}:{secret}@{place}"
