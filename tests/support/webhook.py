"""What arrives at a web address of this machine that alarms are sent to."""

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Received(list[dict[str, Any]]):
    """Messages in the order in which they arrived, each with `subject`, `body` and `at`, as by `time.monotonic()`."""

    address: str

    def wait_for(self, subject: str, seconds: float) -> dict[str, Any]:
        """Return the first message whose subject has these words, once it is there."""
        give_up = time.monotonic() + seconds
        while not (found := self.about(subject)):
            assert time.monotonic() < give_up, (
                f"no message about '{subject}' came, but {[each['subject'] for each in self]}"
            )
            time.sleep(0.05)
        return found[0]

    def about(self, subject: str) -> list[dict[str, Any]]:
        """Return all messages whose subject has these words."""
        return [message for message in self if subject in message["subject"]]

    def crashes(self) -> str:
        """Return what was said of crashed runs."""
        return "\n".join(message["body"] for message in self.about("a run crashed"))


@contextmanager
def webhook() -> Iterator[Received]:
    """Listen on a free port for what a webhook is sent."""
    received = Received()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(message | {"at": time.monotonic()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Receiver)) as port:
        received.address = f"http://127.0.0.1:{port}/hook"
        yield received


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
