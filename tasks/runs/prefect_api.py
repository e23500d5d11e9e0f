"""A few questions to the Prefect server, without Prefect: its import takes two seconds, and its client waits minutes.

Every call ends within seconds. A server that is away is no reason to end a run: `ServerAway` says so.
"""

import base64
import json
import os
import sys
import time
import uuid
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

_PATIENCE_SECONDS = 5.0
_NEVER = (400, 409, 413, 422)


class ServerAway(Exception):
    """The server does not answer, or not as a Prefect server does."""


class ServerRefuses(ServerAway):
    """The server is there and will never take this: to try again later is of no use."""


@dataclass(frozen=True, slots=True)
class Api:
    """A Prefect server. An answer is None where what is asked for, or what a change belongs to, does not exist."""

    url: str  # as PREFECT_API_URL, ends in /api
    login: str | None = None  # user:password
    key: str | None = None  # of Prefect Cloud
    _tokens: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def get(self, path: str) -> Any:
        """Ask."""
        return self._ask("GET", path, None, {})

    def post(self, path: str, body: Any) -> Any:
        """Make something."""
        return self._change("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """Change something."""
        return self._change("PATCH", path, body)

    def delete(self, path: str) -> None:
        """Remove something."""
        self._change("DELETE", path, None)

    def answers(self) -> bool:
        """Whether the server is there."""
        try:
            return self.get("health") is True
        except ServerAway:
            return False

    def _change(self, method: str, path: str, body: Any) -> Any:
        """Change something with a token, which a server wants that protects itself against requests of web pages."""
        try:
            return self._ask(method, path, body, self._tokens or self._new_tokens())
        except ServerAway as error:
            if _code(error) != 403:  # a token is good for an hour
                raise
            return self._ask(method, path, body, self._new_tokens())

    def _new_tokens(self) -> dict[str, str]:
        client = str(uuid.uuid4())
        self._tokens["Prefect-Csrf-Client"] = client
        try:
            if answer := self._ask("GET", f"csrf-token?client={client}", None, {}):
                self._tokens["Prefect-Csrf-Token"] = answer["token"]
        except ServerAway as error:
            if _code(error) != 422:  # it does not protect itself
                self._tokens.clear()
                raise
        return self._tokens

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        headers = {"Content-Type": "application/json", **headers}
        if self.login:
            headers["Authorization"] = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        elif self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/{path}", data, headers, method=method)  # noqa: S310 - the scheme is checked
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with urlopen(request, timeout=_PATIENCE_SECONDS) as answer:  # noqa: S310
                    text = answer.read()
                    return json.loads(text) if text else None
            except HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 503 or time.monotonic() > give_up:  # 503: its database is locked at the moment
                    kind = ServerRefuses if error.code in _NEVER else ServerAway
                    raise kind(f"{self.url} refused {method} {path}: {error.code} {error.reason}") from error
                time.sleep(0.2)
            except (OSError, HTTPException, ValueError) as error:  # an answer may be cut off, or be none of Prefect's
                raise ServerAway(f"{self.url} does not answer: {error}") from error


def _code(error: ServerAway) -> int | None:
    return error.__cause__.code if isinstance(error.__cause__, HTTPError) else None


def named_api() -> Api | None:
    """Return the server that Prefect's settings or the environment of this process name, None where there is none."""
    names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")
    found: list[Any] = [os.environ.get(name) or None for name in names]
    if "prefect" in sys.modules:
        import prefect.settings

        found = [getattr(prefect.settings, name).value() for name in names]
    url, login, key = (each.get_secret_value() if hasattr(each, "get_secret_value") else each for each in found)
    return Api(url.rstrip("/"), login, key) if url and url.startswith(("http://", "https://")) else None
