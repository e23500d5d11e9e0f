import errno
import io
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from regraft.photos import images
from regraft.photos.decoder import inspect
from regraft.photos.images import Threads, is_suffix_of, load_rgb, open_image, to_luma
from tests.support.contract_photos import STORED
from tests.support.mutations import in_mode

ORIENTATION = 0x0112


@pytest.fixture
def image(photo) -> Image.Image:
    """A landscape photo of 60 x 40 pixels."""
    return Image.fromarray(photo(1, 60, 40))


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def encoded(image: Image.Image, format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", STORED)
def test_a_photo_is_upright_whatever_its_exif_orientation(tmp_path, image, orientation):
    upright, exif = np.asarray(image), Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    assert np.array_equal(load_rgb(saved(tmp_path / "photo.png", stored, exif=exif)), upright)


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (200, 0, 0, 0)), ("LA", (0, 0))])
def test_what_is_transparent_becomes_white(tmp_path, mode, colour):
    assert (load_rgb(saved(tmp_path / "logo.png", Image.new(mode, (6, 4), colour))) == 255).all()


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    grey = np.array([[0, 257, 32768, 65535]], np.uint16)
    rgb = load_rgb(saved(tmp_path / "scan.png", Image.fromarray(grey)))
    assert rgb[0, :, 0].tolist() == [0, 1, 127, 255]


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    assert load_rgb(path)[0, 0].tolist() == [255, 0, 0]


def test_the_content_decides_what_a_file_is_and_not_its_name(tmp_path, image):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(image, "JPEG"))
    facts = inspect(path, max_pixels=10**6)
    assert (facts.format, facts.problem) == ("JPEG", None)


def test_facts_are_those_of_the_file(tmp_path, image):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    facts = inspect(saved(tmp_path / "photo.jpg", image, exif=exif), max_pixels=60 * 40)
    assert (facts.width, facts.height, facts.mode, facts.orientation, facts.frames) == (60, 40, "RGB", 6, 1)


@pytest.mark.parametrize(
    ("name", "format_name", "expected"),
    [
        ("a/photo.JPG", "JPEG", True),
        ("photo.jpeg", "MPO", True),
        ("photo", "PNG", True),
        ("photo.png", "JPEG", False),
        ("broken.jpg", "", True),
    ],
)
def test_a_suffix_of_another_format_is_wrong_and_one_that_says_nothing_is_not(name, format_name, expected):
    assert is_suffix_of(name, format_name) is expected


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (b"", "the file is empty"),
        (b"no image", "not an image that can be read"),
        (encoded(Image.effect_noise((60, 40), 50), "JPEG")[:-200], "cannot be decoded: image file is truncated"),
        (encoded(Image.new("RGB", (61, 40)), "PNG"), "61 x 40 pixels is above validate_data.max_pixels (2400)"),
        (
            encoded(Image.new("F", (6, 4)), "TIFF"),
            "floating-point numbers with no agreed range; save it with 8 or 16 bits",
        ),
    ],
)
def test_a_problem_is_told_in_words(tmp_path, contents, problem):
    path = tmp_path / "photo.jpg"
    path.write_bytes(contents)
    assert problem in (inspect(path, max_pixels=2400).problem or "")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_hostile_bytes_are_a_problem_and_never_an_exception(tmp_path, image, format):
    good, path, random = encoded(image, format), tmp_path / "hostile", np.random.default_rng(0)
    problems = 0
    for _ in range(60):
        contents = np.frombuffer(good, np.uint8).copy()
        contents[random.integers(len(good), size=8)] = random.integers(256, size=8)
        path.write_bytes(contents[: random.integers(len(good))].tobytes())
        facts = inspect(path, max_pixels=10**6)
        assert facts.problem or min(facts.width or 0, facts.height or 0) > 0
        problems += facts.problem is not None
    assert problems > 30  # most files are cut short


def test_an_image_above_max_pixels_is_not_decoded(tmp_path, image, monkeypatch):
    path = saved(tmp_path / "photo.png", image)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    assert "above validate_data.max_pixels (100)" in (inspect(path, max_pixels=100).problem or "")


@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (OSError(errno.EIO, "Input/output error"), errno.EIO),
        (MemoryError(), errno.ENOMEM),
        (OSError("out of memory when reading image file"), errno.ENOMEM),  # as Pillow says it of a decoder
    ],
)
def test_a_failure_of_the_machine_is_no_problem_of_the_file(tmp_path, image, monkeypatch, failure, number):
    def load(_: Image.Image) -> None:
        raise failure

    path = saved(tmp_path / "photo.png", image)
    monkeypatch.setattr(PngImageFile, "load", load, raising=False)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        inspect(path, max_pixels=10**6)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_of_threads_come_in_order(workers):
    assert list(Threads(workers).map(lambda number: number**2, range(100))) == [number**2 for number in range(100)]


def test_threads_do_not_read_everything_ahead():
    taken = []
    items = (taken.append(number) or number for number in range(10_000))
    results = Threads(2).map(str, items)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 50


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 300), (200, 150)), ((810, 1200), (102, 150)), ((150, 90), (150, 90))]
)
def test_a_jpeg_can_be_decoded_at_a_part_of_its_size_and_not_below_what_is_enough(photo, tmp_path, size, expected):
    Image.fromarray(photo(0, *size)).save(tmp_path / "a.jpg", quality=95)
    height, width, _ = load_rgb(tmp_path / "a.jpg", shorter_side=100).shape
    assert (width, height) == expected


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
@pytest.mark.parametrize(("width", "height"), [(61, 40), (300, 1), (1, 300)])
def test_an_image_that_is_converted_part_by_part_has_the_same_pixels_as_whole(photo, monkeypatch, mode, width, height):
    picture = in_mode(Image.fromarray(photo(0, width, height)), mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    stream = io.BytesIO()
    picture.save(stream, "TIFF" if mode == "CMYK" else "PNG", **({"transparency": 3} if mode == "P" else {}))
    whole, grey = load_rgb(stream), luma_of(stream)
    monkeypatch.setattr(images, "_PART_PIXELS", 100)
    assert np.array_equal(load_rgb(stream), whole)
    assert luma_of(stream) == grey
    assert grey == Image.fromarray(whole).convert("L")


def luma_of(stream: io.BytesIO) -> Image.Image:
    with open_image(stream) as image:
        return to_luma(image)


def test_an_image_that_turns_out_larger_than_its_header_is_refused(image, monkeypatch):
    def load(self: Image.Image) -> None:
        self._size = (61, 40)

    monkeypatch.setattr(PngImageFile, "load", load, raising=False)
    with pytest.raises(ValueError, match="61 x 40 pixels, more than its header says"):
        load_rgb(io.BytesIO(encoded(image, "PNG")))


@pytest.mark.parametrize("format", ["ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "ICNS", "XBM", "DDS", "QOI"])
def test_formats_that_are_on_no_list_are_not_opened(tmp_path, image, format):
    picture = image.convert("1") if format == "XBM" else image.resize((64, 64))
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(picture, format))
    assert inspect(path, max_pixels=10**6).problem == "not an image that can be read"


def test_who_stops_does_not_wait_for_what_has_not_begun():
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.2)
        return item

    start, items = time.monotonic(), Threads(2).map(work, range(100))
    next(items)
    del items  # as a loop does that is left
    assert time.monotonic() - start < 0.4  # the first item took half of it
    time.sleep(0.5)
    assert len(begun) < 8
