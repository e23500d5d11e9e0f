"""Which Prefect server a run reports to."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from flows.prefect_server.server_secret import HOST, get, knows, read_secret, secret_path
from tasks.runs.prefect_api import named_api

PORT = 4200  # where `regraft serve` and `regraft serve` listen


@contextmanager
def connected() -> Iterator[bool]:
    """Report to the server that PREFECT_API_URL or the Prefect profile names, else to `regraft serve`'s if it runs.

    Yields whether there is one. Without one no server is started: a run needs none.
    """
    import prefect.settings
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    named = PREFECT_API_URL.value()
    if chosen := login(named):
        with temporary_settings({getattr(prefect.settings, name): value for name, value in chosen.items()}):
            yield True
        return
    api = named_api()
    if api and not api.answers():
        print(f"The Prefect server at {api.url} does not answer, so this run does not report to it.", file=sys.stderr)
        api = None
    with temporary_settings({} if api else {PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield api is not None


def login(named: str | None) -> dict[str, str] | None:
    """Return the settings that log in at `regraft serve`'s server, None where another is to be used.

    The secret goes to that server only, and only once it has shown that it knows the secret.

    Args:
        named: the address in Prefect's settings, if there is one.
    """
    if named and not _is_local(named):
        return None
    secret = read_secret(secret_path())
    if secret and knows(secret, PORT):
        use_no_proxy()
        return {"PREFECT_API_URL": f"http://{HOST}:{PORT}/api", "PREFECT_API_AUTH_STRING": secret}
    if not named and _answers():
        print(
            f"The Prefect server on port {PORT} was not started by your `regraft serve`, so this run "
            "does not report to it. If it is yours, stop it and run `regraft serve`.",
            file=sys.stderr,
        )
    return None


def _is_local(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return (parts.scheme, parts.hostname in (HOST, "localhost"), parts.port) == ("http", True, PORT)
    except ValueError:
        return False


def use_no_proxy() -> None:
    """Keep this process and its children from sending what is meant for this machine through a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = os.environ.get(name, "")
        if hosts != "*" and HOST not in hosts.split(","):
            os.environ[name] = f"{hosts},{HOST}".lstrip(",")


def _answers() -> bool:
    # Other programs listen on 4200 too: only Prefect answers its health check with `true`.
    return get("/api/health", PORT) == b"true"
