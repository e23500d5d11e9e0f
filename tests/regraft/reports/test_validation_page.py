import re
from pathlib import Path

import pytest
from PIL import Image

from regraft.core.params_file import load_params
from regraft.photos.duplicates import mark_duplicates
from regraft.photos.images import Threads
from regraft.photos.inspectors import Inspectors
from regraft.photos.manifest import photos_of
from regraft.reports.validation_page import write_validation_page
from regraft.validation.checks import validate
from tests.support.library import LIMITS, scan_folder
from tests.support.suite import suite_with


@pytest.fixture(scope="module")
def folder(photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six photos, a dark one, one under two labels, and a broken one."""
    raw = tmp_path_factory.mktemp("folder") / "raw"
    for number in range(12):
        path = raw / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(number, 90, 70)).save(path)
    Image.new("RGB", (90, 70), (1, 2, 1)).save(raw / "cat" / "dark <night>.png")
    (raw / "cat" / "both.png").write_bytes((raw / "dog" / "0.png").read_bytes())
    (raw / "dog" / "broken.png").write_bytes(b"\x89PNG broken")
    return raw


@pytest.fixture(scope="module")
def page(folder: Path, root: Path) -> str:
    settings = load_params(root / "params.yaml").validate_data
    layout, manifest = scan_folder(folder)
    manifest = mark_duplicates(manifest, max_hash_distance=0, on_label_conflict="drop")
    report = validate(layout, manifest, settings, suite_with({"enough_images_per_class.min_value": 1}))
    write_validation_page(
        folder.with_name("page.html"), report, manifest, photos_of(manifest, folder), threads=Threads(1), limits=LIMITS
    )
    return folder.with_name("page.html").read_text()


def shown(page: str, expected: str) -> list[str]:
    """The captions of the photos below the heading of an expectation."""
    (section,) = [part for part in page.split("<section ") if f"<h2>Expected: {expected}" in part]
    return re.findall(r"<figcaption>(.*?)</figcaption>", section)


def test_a_photo_is_shown_below_each_expectation_that_it_violates(page):
    assert shown(page, "a mean grey value of at least 0.05") == ["cat/dark &lt;night&gt;.png"]
    assert shown(page, "no file under two labels") == ["cat/both.png", "dog/0.png"]
    assert "broken.png</figcaption>" not in page  # it cannot be decoded
    assert "Expected: a shorter side" not in page  # it holds


def test_no_photo_is_decoded_by_the_process_that_writes_the_page(folder, tmp_path, root, monkeypatch):
    settings = load_params(root / "params.yaml").validate_data
    layout, manifest = scan_folder(folder)
    tiny = {"min_value": 1000, "unusual": 0.01}
    suite = suite_with({f"large_enough_images.{key}": value for key, value in tiny.items()})
    report = validate(layout, manifest, settings, suite)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened here"))
    monkeypatch.setattr("regraft.reports.validation_page.write_page", lambda path, title, pages: None)
    asked = []
    thumbnail = Inspectors.thumbnail
    monkeypatch.setattr(Inspectors, "thumbnail", lambda *a, **how: asked.append(a[1]) or thumbnail(*a, **how))
    write_validation_page(
        tmp_path / "page.html", report, manifest, photos_of(manifest, folder), threads=Threads(1), limits=LIMITS
    )
    assert asked
