"""Files in a bucket: a real server, one that is down, and one that misbehaves."""

import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from bulwark.ops import health
from bulwark.settings import ConfigurationError
from bulwark.uploads import cleanup
from bulwark.uploads.storage import LocalFolder, StorageError, new_name
from tests.bucket import SECRET, BucketServer
from tests.bulwark.uploads.conftest import Owner, names_in
from tests.bulwark.uploads.contents import PNG

DAY = 24 * 60 * 60


@pytest.fixture
def bucket_class() -> Any:
    pytest.importorskip("boto3", reason="needs boto3, an option")
    from bulwark.uploads.bucket import Bucket

    return Bucket


@pytest.fixture
def files(
    team_app: Flask,
    papers: Path,
    bucket_server: BucketServer,
    bucket_class: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The files in the bucket of the service."""
    url = bucket_server.url()
    config = replace(team_app.extensions["bulwark"], uploads_url=url)
    monkeypatch.setitem(team_app.extensions, "bulwark", config)
    monkeypatch.setitem(team_app.extensions, "uploads", bucket_class(url))
    return bucket_server.files


def test_files_are_in_the_bucket_alone(owner: Owner, papers: Path, files: Path):
    paper = owner.keep("photo.png", PNG)
    (file,) = files.iterdir()
    assert file.read_bytes() == PNG
    assert names_in(papers) == []
    response = owner.get(paper)
    assert response.data == PNG
    assert response.headers["Content-Disposition"] == "attachment; filename=photo.png"


def test_the_clean_up_deletes_from_the_bucket(
    owner: Owner, team_app: Flask, files: Path
):
    paper = owner.keep("a.txt", b"a")
    owner.send(("b.txt", b"b"), path="/papers/failing")
    (files / "of-another-program").write_bytes(b"x")
    for path in files.iterdir():
        os.utime(path, (time.time() - DAY - 60,) * 2)
    with team_app.app_context():
        cleanup.delete_unused.call_local()
    assert len(list(files.iterdir())) == 2
    assert owner.get(paper).data == b"a"


def test_more_than_a_thousand_files_are_found(files: Path, team_app: Flask):
    names = {new_name() for _ in range(1001)}
    for name in names:
        (files / name).touch()
    (files / "folder").mkdir()
    (files / "folder" / new_name()).touch()
    found = team_app.extensions["uploads"].files()
    assert {file.name for file in found} == names


def test_while_the_bucket_is_down_files_get_503(
    owner: Owner, team_app: Flask, files: Path, bucket_server: BucketServer
):
    paper = owner.keep("a.txt", b"a")
    bucket_server.stop()
    for response in (owner.get(paper), owner.send(("b.txt", b"b"))):
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert SECRET not in response.text
    with team_app.app_context():
        checks = health.run_checks({"uploads": health.CHECKS["uploads"]})
    assert checks["uploads"]
    bucket_server.start()
    assert owner.get(paper).data == b"a"
    with team_app.app_context():
        checks = health.run_checks({"uploads": health.CHECKS["uploads"]})
    assert checks == {"uploads": ""}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"secret": "wrong"}, "SignatureDoesNotMatch"),
        ({"bucket": "another"}, "NoSuchBucket"),
    ],
)
def test_a_refusal_names_its_reason_and_no_secret(
    bucket_server: BucketServer, bucket_class: Any, wrong: dict[str, str], code: str
):
    storage = bucket_class(bucket_server.url(**wrong))
    for action in (
        lambda: storage.open("a" * 32),
        lambda: storage.write("a" * 32, io.BytesIO(b"x")),
        lambda: list(storage.files()),
    ):
        with pytest.raises(StorageError, match=code) as raised:
            action()
        assert "wrong" not in str(raised.value)


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[int]]]:
    """Listen, give every client the answer, and then say no more.

    Yields the URL of a bucket there, and a list that has an entry for each client.
    """
    clients: list[int] = []
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                clients.append(1)
                connections.append(connection)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        yield f"http://key:secret@127.0.0.1:{port}/bucket?region=us-east-1", clients
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    for connection in connections:
        connection.close()


def test_a_bucket_that_never_answers_holds_no_request(
    bucket_class: Any, monkeypatch: pytest.MonkeyPatch
):
    from botocore.config import Config

    from bulwark.uploads import bucket

    options = bucket.OPTIONS
    longest = options.connect_timeout + options.read_timeout + 1  # and a pause
    assert longest * options.retries["total_max_attempts"] < 30  # gunicorn's
    quick = options.merge(Config(read_timeout=0.2))
    monkeypatch.setattr(bucket, "OPTIONS", quick)
    with answering(b"") as (url, clients):
        with pytest.raises(StorageError, match="ReadTimeout"):
            bucket_class(url).open("a" * 32)
        assert len(clients) == 2


def test_a_content_that_is_cut_short_is_an_error(
    bucket_class: Any, monkeypatch: pytest.MonkeyPatch
):
    from botocore.config import Config

    from bulwark.uploads import bucket

    quick = bucket.OPTIONS.merge(Config(read_timeout=0.2))
    monkeypatch.setattr(bucket, "OPTIONS", quick)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    with (
        answering(head + b"too little") as (url, _),
        bucket_class(url).open("a" * 32) as file,
        pytest.raises(StorageError, match="unreachable"),
    ):
        file.read()


def copied(app: Flask, target: str) -> Any:
    return app.test_cli_runner().invoke(args=["copy-uploads", target])


def test_files_move_to_a_bucket_and_back(
    owner: Owner,
    team_app: Flask,
    papers: Path,
    bucket_server: BucketServer,
    bucket_class: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    kept = [owner.keep(f"{n}.txt", f"{n}".encode()) for n in range(3)]
    url = bucket_server.url()
    config = replace(team_app.extensions["bulwark"], uploads_url=url)
    monkeypatch.setitem(team_app.extensions, "bulwark", config)
    monkeypatch.setitem(team_app.extensions, "uploads", bucket_class(url))
    # One is there, and one was cut short.
    first, second, _ = LocalFolder(papers).files()
    whole = (papers / first.name[:2] / first.name).read_bytes()
    (bucket_server.files / first.name).write_bytes(whole)
    (bucket_server.files / second.name).write_bytes(b"")
    done = copied(team_app, "bucket")
    assert (done.exit_code, done.output) == (0, "Copied 2 files; 1 were there.\n")
    assert [owner.get(paper).data for paper in kept] == [b"0", b"1", b"2"]
    assert len(names_in(papers)) == 3  # it deletes none
    later = owner.keep("3.txt", b"3")
    done = copied(team_app, "folder")
    assert (done.exit_code, done.output) == (0, "Copied 1 files; 3 were there.\n")
    monkeypatch.setitem(team_app.extensions, "uploads", LocalFolder(papers))
    assert owner.get(later).data == b"3"
    bucket_server.stop()
    monkeypatch.setitem(team_app.extensions, "uploads", bucket_class(url))
    done = copied(team_app, "bucket")
    assert done.exit_code == 1
    assert "Run this again" in done.output


def test_without_a_bucket_there_is_nothing_to_copy(team_app: Flask, papers: Path):
    done = copied(team_app, "bucket")
    assert done.exit_code == 1
    assert "APP_UPLOADS_URL is not set" in done.output


def test_without_boto3_a_bucket_stops_the_start(
    team_app: Flask, monkeypatch: pytest.MonkeyPatch
):
    import sys

    from bulwark import uploads

    monkeypatch.setitem(sys.modules, "boto3.session", None)
    monkeypatch.setitem(sys.modules, "boto3.s3.transfer", None)
    monkeypatch.delitem(sys.modules, "bulwark.uploads.bucket", raising=False)
    monkeypatch.delattr(uploads, "bucket", raising=False)
    url = "https://key:secret@storage.test/bucket?region=us-east-1"
    config = replace(team_app.extensions["bulwark"], uploads_url=url)
    with pytest.raises(ConfigurationError, match='add "boto3'):
        uploads.init_app(Flask("app"), config)
