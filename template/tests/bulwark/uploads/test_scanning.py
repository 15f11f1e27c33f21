"""A virus scanner: what it finds is refused, and so is everything while it is down."""

import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from bulwark.uploads import scanning
from tests.bulwark.uploads.conftest import Owner, names_in

BAD = b"what the signature describes, 4711"
CLAMD = shutil.which("clamd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PATIENCE = 60


class Scanner:
    """Speaks clamd's protocol on a socket, with an answer that a test chooses."""

    def __init__(self, path: str, answer: bytes) -> None:
        self.answer, self.received = answer, b""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as stream:
            assert stream.read(10) == b"zINSTREAM\0"
            while size := struct.unpack("!L", stream.read(4))[0]:
                self.received += stream.read(size)
            connection.sendall(self.answer)

    def close(self) -> None:
        self.thread.join(10)
        self.listener.close()


@pytest.fixture
def path(team_app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a scanner's socket, which the service uses."""
    path = str(tmp_path / "clamd.ctl")
    with_scanner = replace(team_app.extensions["bulwark"], virus_scanner=path)
    monkeypatch.setitem(team_app.extensions, "bulwark", with_scanner)
    return path


def test_a_clean_file_is_stored(owner: Owner, path: str):
    content = b"x" * 200_000
    scanner = Scanner(path, b"stream: OK\0")
    assert owner.get(owner.keep("a.txt", content)).data == content
    scanner.close()
    assert scanner.received == content


def test_an_infected_file_is_refused(owner: Owner, papers: Path, path: str, capsys):
    scanner = Scanner(path, b"stream: Eicar-Signature FOUND\0")
    assert "contains malware" in owner.is_refused("a.txt", b"x")
    scanner.close()
    assert names_in(papers) == []
    logged = capsys.readouterr()
    assert "upload_malware" in logged.out + logged.err


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"INSTREAM size limit exceeded. ERROR\0",
        b"stream: Can't allocate memory ERROR\0",
        b"UNKNOWN COMMAND\0",
        b"stream: OK, perhaps\0",
    ],
)
def test_a_file_that_was_not_scanned_is_refused(
    owner: Owner, papers: Path, path: str, answer: bytes
):
    scanner = Scanner(path, answer)
    assert owner.send(("a.txt", b"x")).status_code == 503
    scanner.close()
    assert names_in(papers) == []


def test_without_the_scanner_no_file_is_accepted(owner: Owner, papers: Path, path: str):
    assert owner.send(("a.txt", b"x")).status_code == 503
    assert names_in(papers) == []


def test_a_scanner_that_hangs_holds_up_no_request_for_long(
    owner: Owner, papers: Path, path: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scanning, "TIMEOUT", 0.5)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        assert owner.send(("a.txt", b"x")).status_code == 503
    assert names_in(papers) == []


@pytest.fixture
def clamd(path: str, tmp_path: Path) -> Iterator[str]:
    """A real clamd, whose only signature is ours."""
    (tmp_path / "signatures").mkdir(mode=0o755)
    signature = tmp_path / "signatures/test.ndb"
    signature.write_text(f"Test.Signature:0:*:{BAD.hex()}\n")
    config = tmp_path / "clamd.conf"
    config.write_text(
        f"DatabaseDirectory {signature.parent}\n"
        f"LocalSocket {path}\nForeground yes\nStreamMaxLength 1M\nPidFile {path}.pid\n"
    )
    command = [CLAMD or "clamd", f"--config-file={config}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + PATIENCE
        while not os.path.exists(path) and time.monotonic() < end:  # noqa: PTH110
            time.sleep(0.1)
        yield path
        process.terminate()


@pytest.mark.skipif(not CLAMD, reason="needs clamd")
@pytest.mark.usefixtures("clamd")
def test_clamd_finds_what_its_signatures_describe(owner: Owner, papers: Path):
    owner.keep("clean.txt", b"nothing of that kind")
    assert "malware" in owner.is_refused("a.txt", b"before " + BAD + b" after")
    assert owner.send(("large.txt", b"x" * 1_500_000)).status_code == 503
    assert len(names_in(papers)) == 1
