"""Which server a run reports to, found out without Prefect: the same answer as Prefect's own."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows import server

NAMED = "http://127.0.0.1:9/api"
PROFILES = (
    f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{NAMED}"\n[profiles.other]\nPREFECT_LOGGING_LEVEL = "INFO"\n'
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, a home without settings, and no server where `make ui` listens."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILES_PATH", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(server, "LOCAL_API", NAMED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prefect_has_one() -> bool:
    """What Prefect makes of the same settings."""
    from prefect.settings import Settings

    return Settings().api.url is not None


def test_without_settings_and_without_make_ui_no_server_is_expected(root: Path, folder: Path) -> None:
    (folder / "pyproject.toml").write_text((root / "pyproject.toml").read_text())
    assert (server.is_expected(), prefect_has_one()) == (False, False)


def test_the_environment_may_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NAMED)
    assert (server.is_expected(), prefect_has_one()) == (True, True)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".env", f"PREFECT_API_URL={NAMED}\n"),
        ("prefect.toml", f'[api]\nurl = "{NAMED}"\n'),
        ("pyproject.toml", f'[tool.prefect]\napi.url = "{NAMED}"\n'),
        ("home/profiles.toml", PROFILES),
    ],
)
def test_a_file_may_name_one(folder: Path, path: str, text: str) -> None:
    (folder / path).write_text(text)
    assert (server.is_expected(), prefect_has_one()) == (True, True)


def test_another_profile_may_be_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "home/profiles.toml").write_text(PROFILES)
    monkeypatch.setenv("PREFECT_PROFILE", "other")
    assert (server.is_expected(), prefect_has_one()) == (False, False)


def test_profiles_that_cannot_be_read_are_left_to_prefect(folder: Path) -> None:
    (folder / "home/profiles.toml").write_text("active =")
    assert server.is_expected()


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What a program answers where `make ui` listens."""
    said: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said[0])

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as local:
        threading.Thread(target=local.serve_forever, daemon=True).start()
        monkeypatch.setattr(server, "LOCAL_API", f"http://127.0.0.1:{local.server_port}/api")
        yield said
        local.shutdown()


@pytest.mark.parametrize(("said", "is_prefect"), [(b"true", True), (b"hello", False)])
def test_a_server_of_make_ui_is_expected_and_another_program_is_not(
    answer: list[bytes], said: bytes, is_prefect: bool
) -> None:
    answer.append(said)
    assert server.is_expected() is is_prefect
