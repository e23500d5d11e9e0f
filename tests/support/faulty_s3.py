"""An S3 server (moto) behind a proxy that fails now and then, drops connections and lists new objects late."""

import http.client
import itertools
import logging
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("500", "503", "no answer", "half an answer")
_ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>a fault that a test made</Message></Error>'
_ENTRY = re.compile(rb"<Contents>.*?<LastModified>([^<]+)</LastModified>.*?</Contents>", re.S)


class FaultyServer(ThreadingHTTPServer):
    """The proxy; `calls` counts methods, faults and bytes of answers, `fetched` has path and bytes of each GET."""

    daemon_threads = True

    def __init__(self, target: tuple[str, int], *, every: int, late_seconds: float) -> None:
        """Forward to `target`; every so many calls fail (0: none), and objects so young are in no listing."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.every, self.late_seconds = target, every, late_seconds
        self.calls: Counter[str] = Counter()
        self.fetched: list[tuple[str, int]] = []
        self.closed: str | None = None  # the beginning of paths, such as /bucket/production, that get no answer
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def next_fault(self) -> str | None:
        """Return what goes wrong with this call, or None."""
        number = next(self._numbers)
        if not self.every or number % self.every:
            return None
        return FAULTS[number // self.every % len(FAULTS)]

    def count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.calls[what] += by

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that was killed closes its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def _forward(self) -> None:
        body = self._body()
        is_closed = self.server.closed is not None and self.path.startswith(self.server.closed)
        fault = "no answer" if is_closed else self.server.next_fault()
        self.server.count(self.command)
        if fault:
            self.server.count(fault)
        if fault in ("500", "503"):
            code = "InternalError" if fault == "500" else "SlowDown"
            self._answer(int(fault), [("Content-Type", "application/xml")], _ERROR.format(code).encode())
            return
        if fault == "no answer":
            self.close_connection = True
            return
        connection = http.client.HTTPConnection(*self.server.target, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        contents = answer.read()
        connection.close()
        if self.command == "GET" and "list-type=2" in self.path and self.server.late_seconds:
            contents = _ENTRY.sub(self._unless_young, contents)
        skipped = ("content-length", "transfer-encoding", "connection")
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in skipped]
        if self.command == "HEAD":
            headers.append(("Content-Length", answer.getheader("Content-Length") or "0"))
        self._answer(answer.status, headers, contents, is_half=fault == "half an answer" and self.command == "GET")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            del self.headers["Transfer-Encoding"]
            self.headers["Content-Length"] = str(sum(map(len, parts)))
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _unless_young(self, entry: re.Match[bytes]) -> bytes:
        written = datetime.fromisoformat(entry[1].decode().replace("Z", "+00:00"))
        return b"" if (datetime.now(UTC) - written).total_seconds() < self.server.late_seconds else entry[0]

    def _answer(self, status: int, headers: list[tuple[str, str]], contents: bytes, *, is_half: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        sent = contents[: len(contents) // 2] if is_half else contents
        self.server.count("bytes", len(sent))
        if self.command == "GET":
            self.server.fetched.append((self.path.partition("?")[0], len(sent)))
        if self.command != "HEAD":
            self.wfile.write(sent)
        if is_half:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def faulty_s3(*, every: int = 0, late_seconds: float = 0.0) -> Iterator[tuple[FaultyServer, dict[str, str]]]:
    """Start an S3 server with a bucket, `faulty`; yield the proxy and the environment that names it."""
    import boto3
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line per call
    moto.start()
    host, port = moto.get_host_and_port()
    secrets = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    ).create_bucket(Bucket="faulty")
    proxy = FaultyServer((host, port), every=every, late_seconds=late_seconds)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_address[1]}", **secrets}
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()
