"""A web server on this machine that behaves as a test wants it to."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from regraft.photos import checked_http
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.spool import Spool


class PhotoServer:
    """Photos by their paths, and what goes wrong with some of them."""

    def __init__(self) -> None:
        self.photos: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.statuses: dict[str, list[int]] = {}  # answered one after the other, before the photo itself
        self.drips: set[str] = set()  # a byte now and then, without end
        self.cut: set[str] = set()  # half of the photo, then the connection is closed
        self.slow_heads: set[str] = set()  # a line of the answer's head now and then, without end
        self.head_etags: dict[str, str] = {}  # that a HEAD request is told in place of the photo's own
        self.endless: set[str] = set()  # nobody knows how many bytes
        self.has_etags = True
        self.asked: Counter[str] = Counter()  # by method and path
        self.url = ""

    def add(self, path: str, contents: bytes) -> str:
        """Serve a photo and return its address."""
        self.photos[path] = contents
        return f"{self.url}/{path}"


@contextmanager
def serving() -> Iterator[PhotoServer]:
    """Run a server while the block runs."""
    photos = PhotoServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def _answer(self) -> None:
            path = self.path.lstrip("/")
            photos.asked[f"{self.command} {path}"] += 1
            if statuses := photos.statuses.get(path):
                self._head(statuses.pop(0), 0)
            elif path in photos.redirects:
                self._head(302, 0, Location=photos.redirects[path])
            elif path in photos.slow_heads:
                self._say_nothing()
            elif path in photos.drips | photos.endless:
                self._head(200, 10**6 if path in photos.drips else None)
                self._pour(path)
            elif path not in photos.photos:
                self._head(404, 0)
            else:
                contents = photos.photos[path]
                etag = {"ETag": f'"{etag_of(contents)}"'} if photos.has_etags else {}
                if self.command == "HEAD" and path in photos.head_etags:
                    etag = {"ETag": photos.head_etags[path]}
                self._head(200, len(contents), **etag)
                if self.command == "GET":
                    self.wfile.write(contents[: len(contents) // 2] if path in photos.cut else contents)
                    self.close_connection = path in photos.cut

        def _head(self, status: int, length: int | None, **headers: str) -> None:
            self.send_response(status)
            headers |= {"Connection": "close"} if length is None else {"Content-Length": str(length)}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _say_nothing(self) -> None:
            self.close_connection = True
            try:
                for _ in range(1000):
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    time.sleep(0.02)
            except OSError:  # nobody waits any more
                pass

        def _pour(self, path: str) -> None:
            self.close_connection = True
            try:
                for _ in range(1000):
                    self.wfile.write(b"x" if path in photos.drips else b"x" * 65_536)
                    time.sleep(0.02 if path in photos.drips else 0)
            except OSError:  # nobody waits any more
                pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    photos.url = f"http://127.0.0.1:{server.server_port}"
    yield photos
    checked_http._pool(True).close()
    server.shutdown()
    server.server_close()


def etag_of(contents: bytes) -> str:
    """Return the ETag that the server gives, without quotes; S3 gives the same."""
    return hashlib.md5(contents, usedforsecurity=False).hexdigest()


def png(seed: int) -> bytes:
    """Return a small photo with pixels of its own."""
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 12, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def elsewhere_in(folder: Path, *, private: bool = True, spool_bytes: float = 1e9, cache_bytes: float = 0) -> Elsewhere:
    """Return what fetches photos, with its spool in a folder."""
    spool = Spool(folder / "photos", spool_bytes)
    return Elsewhere(("https", "http", "s3"), private, spool, cache_bytes)
