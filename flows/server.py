"""Which Prefect server a run reports to."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.settings import PREFECT_API_URL, temporary_settings

LOCAL_API = "http://127.0.0.1:4200/api"  # where `make ui` listens


@contextmanager
def connected() -> Iterator[None]:
    """Report to the server that PREFECT_API_URL or the Prefect profile names, else to `make ui`'s if it runs.

    With neither, Prefect starts a temporary server of its own for this process.
    """
    if PREFECT_API_URL.value() or not _answers(LOCAL_API):
        yield
    else:
        with temporary_settings({PREFECT_API_URL: LOCAL_API}):
            yield


def _answers(api: str) -> bool:
    # Other programs listen on 4200 too: only Prefect answers its health check with `true`.
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=1) as response:  # noqa: S310 - a fixed http address
            return response.read(16).strip() == b"true"
    except (OSError, urllib.error.URLError, ValueError):
        return False
