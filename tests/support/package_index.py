"""A package index with TLS, whose authority no machine knows by itself.

with index(folder, {"hello": Wheel("1.0", {"hello.py": ""})}) as (url, authority): ...

Wheels with a date are listed as PyPI does, others as older indexes do, which know none.
"""

import base64
import hashlib
import json
import ssl
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

from tests.support.certificates import issue


@dataclass
class Wheel:
    """A package: its version, its modules and commands, by name, when it came out."""

    version: str
    modules: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    uploaded: datetime | None = None


class Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **SimpleHTTPRequestHandler.extensions_map,
        ".json": "application/vnd.pypi.simple.v1+json",
    }

    def do_GET(self) -> None:
        if Path(self.translate_path(self.path), "index.json").exists():
            self.path = f"{self.path.rstrip('/')}/index.json"
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Expect clients that refuse the certificate."""


@contextmanager
def index(
    folder: Path, wheels: Mapping[str, Wheel | Sequence[Wheel]]
) -> Iterator[tuple[str, Path]]:
    """Serve wheels; return the address, and the certificate of its authority."""
    authority, own = (
        folder / "authority.pem",
        (folder / "index.pem", folder / "index.key"),
    )
    proxy = trustme.CA()
    proxy.cert_pem.write_to_path(authority)
    issue(proxy, "localhost", *own)
    for name, given in wheels.items():
        versions = [given] if isinstance(given, Wheel) else given
        _list(folder / "served/simple" / name, name, versions)
    server = Server(
        ("127.0.0.1", 0), partial(Handler, directory=str(folder / "served"))
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*own)
    # A client that refuses the certificate must not end the thread that accepts.
    server.socket = tls.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}/simple/", authority
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _list(folder: Path, name: str, wheels: Sequence[Wheel]) -> None:
    folder.mkdir(parents=True)
    archives = [_write(folder, name, wheel) for wheel in wheels]
    links = [f'<a href="{archive.name}">{archive.name}</a>' for archive in archives]
    (folder / "index.html").write_text(
        f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
    )
    files = [
        {
            "filename": archive.name,
            "url": archive.name,
            "hashes": {"sha256": hashlib.sha256(archive.read_bytes()).hexdigest()},
            "upload-time": wheel.uploaded.isoformat(),
        }
        for wheel, archive in zip(wheels, archives, strict=True)
        if wheel.uploaded
    ]
    if files:
        page = {"meta": {"api-version": "1.1"}, "name": name, "files": files}
        (folder / "index.json").write_text(json.dumps(page))


def _write(folder: Path, name: str, wheel: Wheel) -> Path:
    base = f"{name}-{wheel.version}"
    files = {
        **wheel.modules,
        **{f"{base}.data/scripts/{n}": text for n, text in wheel.commands.items()},
        f"{base}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {wheel.version}\n"
        ),
        f"{base}.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = f"{base}.dist-info/RECORD"
    files[record] = "".join(f"{path},{_hash(files[path])}\n" for path in files)
    files[record] += f"{record},,\n"
    archive = folder / f"{base}-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as packed:
        for path, text in files.items():
            file = zipfile.ZipInfo(path)
            file.external_attr = 0o100755 << 16
            packed.writestr(file, text)
    return archive


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    encoded = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return f"sha256={encoded},{len(text.encode())}"
