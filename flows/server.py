"""Which Prefect server a run reports to."""

import os
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCAL_API = "http://127.0.0.1:4200/api"  # where `make ui` listens


@contextmanager
def connected() -> Iterator[None]:
    """Report to the server that PREFECT_API_URL or the Prefect profile names, else to `make ui`'s if it runs.

    With neither, Prefect starts a temporary server of its own for this process.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value() or not _answers(LOCAL_API):
        yield
    else:
        with temporary_settings({PREFECT_API_URL: LOCAL_API}):
            yield


def is_expected() -> bool:
    """Whether a run would report to a server that is not temporary; found out without Prefect, whose import takes 2 s.

    Where only Prefect can tell, the answer is True: then Prefect is started, and decides.
    """
    return _is_named_by_settings() or _answers(LOCAL_API)


def _is_named_by_settings() -> bool:
    # Where Prefect looks, in its order: environment, .env, prefect.toml, pyproject.toml, profile.
    if os.environ.get("PREFECT_API_URL") or _mentions_prefect(Path(".env")) or Path("prefect.toml").exists():
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles_path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        settings = _read_toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {})
        profiles = _read_toml(profiles_path)
        active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
        profile = profiles.get("profiles", {}).get(active, {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError):
        return True
    return bool({"api", "profiles_path"} & set(settings)) or "PREFECT_API_URL" in profile


def _mentions_prefect(path: Path) -> bool:
    return path.is_file() and "PREFECT_" in path.read_text(encoding="utf-8", errors="replace").upper()


def _read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _answers(api: str) -> bool:
    # Other programs listen on 4200 too: only Prefect answers its health check with `true`.
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=1) as response:  # noqa: S310 - a fixed http address
            return response.read(16).strip() == b"true"
    except (OSError, urllib.error.URLError, ValueError):
        return False
