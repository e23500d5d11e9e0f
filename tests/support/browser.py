"""A headless Chromium with one page, for tests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright drives the browser: `make setup` installs it")
from playwright.sync_api import Page, expect, sync_playwright

__all__ = ["Page", "expect", "opened_page", "user_cache"]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Inside a container Chromium cannot start its sandbox as root; a camera that shows a pattern is part of it.
_OPTIONS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@contextmanager
def opened_page(path: Path) -> Iterator[tuple[Page, list[str]]]:
    """Yield a page on disk, and what it asks a network for and complains of; skip the test if there is no Chromium."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        pytest.skip("there is no Chromium: `apt-get install --no-install-recommends chromium` brings one")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=_OPTIONS)
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        complaints: list[str] = []

        def note(is_complaint: bool, text: str) -> None:
            if is_complaint:
                complaints.append(text)

        own = path.as_uri()
        page.on("request", lambda request: note(request.url != own, f"asks for {request.url[:100]}"))
        page.on("console", lambda message: note(message.type == "error", message.text))
        page.on("pageerror", lambda error: note(True, str(error)))
        page.goto(own)
        yield page, complaints
        chromium.close()


def user_cache() -> Path:
    """Return the folder that `regraft try` keeps ONNX Runtime Web in, so that it is fetched once per machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regraft"
