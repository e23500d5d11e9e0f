"""The page that `regraft try` writes, in a browser: it answers as Python does, and nothing leaves it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from regraft.core.errors import RegraftError
from regraft.export.activation_maps import ActivationMaps, heat
from regraft.photos.images import load_rgb
from regraft.reports.try_page.build import write_try_page
from regraft.reports.try_page.runtime import load_runtime
from regraft.serving.shipped_model import ShippedModel
from tests.support.browser import Page, expect, opened_page, user_cache
from tests.support.mutations import encode, in_mode
from tests.support.shipped_files import tiny_graph

pytestmark = pytest.mark.browser

CLASSES = ["apple", "<img src=x onerror=alert(1)>", "</script><b>", "piña", "a & b", "pear"]
PROMISE = {"abstain_below": "0.8", "target_precision": "0.98", "confidence": "0.95", "novelty_above": "0.5"}
TOLERANCE = 1e-4  # of probabilities; measured: 1e-6
# Kinds that Chromium decodes to the very pixels that Pillow does, as mode and how it is written.
KINDS = [
    *[("RGB", kind) for kind in ("jpg", "progressive.jpg", "png", "gif", "bmp", "webp", "avif")],
    *[("L", "jpg"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "png"), ("RGBA", "webp"), ("1", "png")],
    *[("I;16", "png"), ("CMYK", "jpg")],
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with class names that are markup."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(tiny_graph(CLASSES, PROMISE), path)
    return path


@pytest.fixture(scope="module")
def opened(model: Path) -> Iterator[tuple[Page, list[str]]]:
    """Its page, ready, and what it complained of."""
    try:
        runtime = load_runtime(user_cache())
    except RegraftError as error:
        pytest.skip(str(error))
    write_try_page(model.with_name("try.html"), model, runtime)
    with opened_page(model.with_name("try.html")) as (page, complaints):
        expect(page.locator("#status")).to_contain_text("Ready", timeout=60_000)
        yield page, complaints


@pytest.fixture
def page(opened: tuple[Page, list[str]]) -> Iterator[Page]:
    """That page without photos; no test may make it complain."""
    page, complaints = opened
    yield page
    if page.locator("#clear").is_enabled():
        page.locator("#clear").click()
    assert complaints == []


def answers(page: Page, *paths: Path) -> list[dict]:
    """Give the page photos, and return the rows that it saves."""
    page.set_input_files("#files", paths)
    return saved(page, len(paths))


def saved(page: Page, count: int) -> list[dict]:
    expect(page.locator("#status")).to_have_text(_done(count), timeout=60_000)
    with page.expect_download() as download:
        page.locator("#save").click()
    return [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]


def _done(count: int) -> re.Pattern[str]:
    return re.compile(rf"^{count} photos? done")


def check_answer(row: dict, shipped: ShippedModel, path: Path) -> None:
    """Fail unless a row says what Python says of a photo."""
    answer = shipped.ask(load_rgb(path))
    found = {entry["class"]: entry["probability"] for entry in row["top"]}
    expected = dict(zip(shipped.class_names, map(float, answer.probabilities), strict=True))
    assert max(abs(found[name] - expected[name]) for name in expected) < TOLERANCE, path.name
    assert row["class"] == shipped.class_of(answer.probabilities)
    assert row["unsure"] == (row["class"] is None)
    assert abs(row["novelty"] - answer.novelty) < TOLERANCE
    assert row["novel"] == shipped.is_novel(answer.novelty)


def test_it_answers_as_python_does(page, model, real_photos):
    shipped, photos = ShippedModel(model), real_photos[:24]
    rows = answers(page, *photos)
    for row, path in zip(rows, photos, strict=True):
        check_answer(row, shipped, path)
        assert row["milliseconds"]["inference"] > 0
    assert {row["unsure"] for row in rows} == {row["novel"] for row in rows} == {True, False}


def test_it_reads_photos_of_all_kinds_as_python_does(page, model, tmp_path, photo):
    picture = Image.fromarray(photo(0, 151, 67))
    alpha = Image.linear_gradient("L").resize(picture.size)
    paths = []
    for mode, kind in KINDS:
        other = in_mode(picture, mode)
        if mode in ("LA", "RGBA"):
            other.putalpha(alpha)
        paths.append(tmp_path / f"{mode.replace(';', '')}.{kind}")
        contents = encode(other, kind)
        assert contents
        paths[-1].write_bytes(contents)
    for orientation in range(2, 9):
        for suffix in ("jpg", "webp"):
            exif = Image.Exif()
            exif[0x0112] = orientation
            paths.append(tmp_path / f"exif{orientation}.{suffix}")
            picture.save(paths[-1], exif=exif, lossless=True)
    for row, path in zip(answers(page, *paths), paths, strict=True):
        check_answer(row, ShippedModel(model), path)


@pytest.mark.parametrize("size", [(1, 1), (3000, 3)])
def test_the_size_of_a_photo_does_not_matter(page, model, tmp_path, photo, size):
    Image.fromarray(photo(1, *size)).save(tmp_path / "a.png")
    (row,) = answers(page, tmp_path / "a.png")
    check_answer(row, ShippedModel(model), tmp_path / "a.png")


def test_bad_files_are_named_and_the_rest_is_done(page, model, tmp_path, real_photos):
    contents = real_photos[0].read_bytes()
    bad = {
        "empty.jpg": b"",
        "cut.jpg": contents[: len(contents) // 2],
        "notes.txt": b"no photo",
        "a<b>.png": b"\x89PNG",
    }
    for name, part in bad.items():
        (tmp_path / name).write_bytes(part)
    paths = [*(tmp_path / name for name in bad), real_photos[0]]
    rows = answers(page, *paths)
    assert [row["path"] for row in rows] == [path.name for path in paths]
    assert [bool(row["error"]) for row in rows] == [True] * len(bad) + [False]
    check_answer(rows[-1], ShippedModel(model), real_photos[0])
    failed = page.locator(".failed")
    assert failed.count() == len(bad)
    assert failed.last.locator("bdi").inner_text() == "a<b>.png"
    expect(page.locator("#status")).to_contain_text("4 not readable")


def test_names_are_text_and_never_markup(page, real_photos):
    answers(page, real_photos[0])
    card = page.locator(".photo")
    assert set(card.locator(".label bdi").all_inner_texts()) <= set(CLASSES)
    assert page.locator("#photos img, #photos b, #facts img").count() == 0


def test_the_heat_is_where_python_says_and_a_key_chooses_the_class(page, model, tmp_path, photo):
    Image.fromarray(photo(3, 112, 112)).save(tmp_path / "a.png")
    answers(page, tmp_path / "a.png")
    probabilities, maps = ActivationMaps(model)(load_rgb(tmp_path / "a.png"))
    order = np.argsort(-probabilities)
    for rank in (0, 1):
        bar = page.locator(".bar").nth(rank)
        if rank:
            assert bar.get_attribute("aria-pressed") == "false"
            bar.focus()
            page.keyboard.press("Enter")
        assert bar.get_attribute("aria-pressed") == "true"
        expected = heat(maps, int(order[rank]))
        assert np.abs(drawn_heat(page, *expected.shape) - expected).max() < 0.02
    page.get_by_label("Show where it looked").uncheck()
    expect(page.locator("canvas.heat")).to_be_hidden()
    page.get_by_label("Show where it looked").check()


def drawn_heat(page: Page, rows: int, columns: int) -> np.ndarray:
    """Return the opacity of the picture in the middle of each position, as a share of the largest."""
    script = """(canvas) => { const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return { side: canvas.width, alpha: [...image.data].filter((_, index) => index % 4 === 3) }; }"""
    found = page.locator("canvas.heat").evaluate(script)
    alpha = np.array(found["alpha"], float).reshape(found["side"], found["side"])
    square = 0.875 * found["side"]
    start = (found["side"] - square) / 2
    middles = [int(start + (index + 0.5) * square / rows) for index in range(rows)]
    return alpha[np.ix_(middles, middles[:columns])] / 200


def test_photos_can_be_dropped_and_pasted(page, model, real_photos, tmp_path):
    script = """([name, bytes, kind]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        document.dispatchEvent(kind === "drop" ? new DragEvent("drop", { dataTransfer: data, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data })); }"""
    for kind in ("drop", "paste"):
        page.evaluate(script, [f"{kind}.jpg", list(real_photos[0].read_bytes()), kind])
    rows = saved(page, 2)
    assert [row["path"] for row in rows] == ["drop.jpg", "paste.jpg"]
    for row in rows:
        check_answer(row, ShippedModel(model), real_photos[0])


def test_the_camera_takes_photos(page):
    page.locator("#camera").click()
    page.locator("#shoot").click()
    (row,) = saved(page, 1)
    assert (row["path"], row["error"]) == ("Camera 1", None)
    page.locator("#stop").click()
    expect(page.locator("#viewfinder")).to_be_hidden()
    assert page.locator("#video").evaluate("(video) => video.srcObject") is None


def test_nothing_can_leave_the_page(opened):
    page, complaints = opened
    before = len(complaints)
    script = """async (leave) => { const told = new Promise((tell) => document.addEventListener(
        "securitypolicyviolation", (event) => tell(event.effectiveDirective), { once: true }));
        if (leave === "fetch") fetch("http://127.0.0.1:9/x").catch(() => 0);
        else new Image().src = "http://127.0.0.1:9/x.png";
        return told; }"""
    assert page.evaluate(script, "fetch") == "connect-src"
    assert page.evaluate(script, "picture") == "img-src"
    del complaints[before:]  # the browser's own, of these two
