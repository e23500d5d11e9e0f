"""A program on a port of this machine that answers as it is told, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]  # status, and what JSON can hold; bytes are sent as they are


@dataclass(slots=True)
class Answering:
    """What it answers, by method and path; several answers of one request are given one after the other."""

    answers: dict[str, Answer | list[Answer]]
    url: str = ""
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def told(self, request: str) -> list[Any]:
        """Return the bodies of all requests of this kind, `POST flow_runs/1/set_state` for instance."""
        return [body for asked, _, body in self.asked if asked == request]

    def answer(self, request: str, headers: dict[str, str], body: Any) -> Answer:
        """Return the next answer, and remember the request."""
        self.asked.append((request, headers, body))
        found = self.answers.get(request, (404, {"detail": "Not Found"}))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found


@contextmanager
def answering(answers: dict[str, Answer | list[Answer]]) -> Iterator[Answering]:
    """Let it answer until the block ends."""
    program = Answering(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = f"{self.command} {self.path.removeprefix('/api/').partition('?')[0]}"
            status, found = program.answer(request, dict(self.headers), json.loads(text) if text else None)
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if not isinstance(found, bytes) else 1000))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        program.url = f"http://127.0.0.1:{server.server_port}/api"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield program
        server.shutdown()
