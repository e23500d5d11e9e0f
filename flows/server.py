"""Which Prefect server a run reports to."""

import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.server_secret import HOST, get, knows, new_secret, read_secret, secret_path

PORT = 4200  # where `make ui` listens


@contextmanager
def connected() -> Iterator[None]:
    """Report to the server that PREFECT_API_URL or the Prefect profile names, else to `make ui`'s if it runs.

    With neither, Prefect starts a temporary server of its own for this process. It has a password too.
    """
    import prefect.settings
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    if chosen := login(PREFECT_API_URL.value()):
        with temporary_settings({getattr(prefect.settings, name): value for name, value in chosen.items()}):
            yield
    elif PREFECT_API_URL.value():
        yield
    else:
        from flows import temporary_server

        _use_no_proxy()
        secret = new_secret()
        temporary_server.prepare(secret)
        with temporary_settings({PREFECT_API_AUTH_STRING: secret}):
            yield


def login(named: str | None) -> dict[str, str] | None:
    """Return the settings that log in at `make ui`'s server, None where another is to be used.

    The secret goes to that server only, and only once it has shown that it knows the secret.

    Args:
        named: the address in Prefect's settings, if there is one.
    """
    if named and not _is_local(named):
        return None
    secret = read_secret(secret_path())
    if secret and knows(secret, PORT):
        _use_no_proxy()
        return {"PREFECT_API_URL": f"http://{HOST}:{PORT}/api", "PREFECT_API_AUTH_STRING": secret}
    if not named and _answers():
        print(
            f"The Prefect server on port {PORT} was not started by your `make ui`, so this run does not report to it. "
            "If it is yours, stop it and run `make ui`.",
            file=sys.stderr,
        )
    return None


def is_expected() -> bool:
    """Whether a run would report to a server that is not temporary; found out without Prefect, whose import takes 2 s.

    Where only Prefect can tell, the answer is True: then Prefect is started, and decides.
    """
    if _is_named_by_settings():
        return True
    secret = read_secret(secret_path())
    return secret is not None and knows(secret, PORT)


def _is_local(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return (parts.scheme, parts.hostname in (HOST, "localhost"), parts.port) == ("http", True, PORT)
    except ValueError:
        return False


def _use_no_proxy() -> None:
    """Keep this process and its children from sending what is meant for this machine through a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = os.environ.get(name, "")
        if hosts != "*" and HOST not in hosts.split(","):
            os.environ[name] = f"{hosts},{HOST}".lstrip(",")


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


def _answers() -> bool:
    # Other programs listen on 4200 too: only Prefect answers its health check with `true`.
    return get("/api/health", PORT) == b"true"
