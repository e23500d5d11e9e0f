"""One photo from outside, opened within limits."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.photos.images import load_rgb
from regraft.photos.memory import PHOTO_MEMORY
from regraft.serving import photo_files
from regraft.serving.photo_files import Unreadable, with_pixels
from tests.support import bombs
from tests.support.odd_files import IGNORE, USE, write_odd_files

HEIC = Path(__file__).parents[2] / "data" / "rotated.heic"


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of odd files, and the verdict on each."""
    folder = tmp_path_factory.mktemp("odd")
    return folder, write_odd_files(folder)


def pixels_of(path: Path, **limits: int) -> np.ndarray:
    return with_pixels(str(path), np.copy, **limits)


def refusal_of(path: Path, **limits: int) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        pixels_of(path, **limits)
    return caught.value


def test_pixels_are_those_that_training_saw(odd_files):
    folder, verdicts = odd_files
    for name, verdict in verdicts.items():
        if verdict == USE:
            assert np.array_equal(pixels_of(folder / name), load_rgb(folder / name)), name
        else:
            assert refusal_of(folder / name).is_photo is (verdict != IGNORE), name
    assert np.array_equal(pixels_of(HEIC), load_rgb(HEIC))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zero_bytes.jpg", "the file is empty"),
        ("notes.txt", "not an image that can be read"),
        ("truncated.jpg", "cannot be decoded: image file is truncated"),
        ("bomb.png", "100000 x 100000 pixels, more than --max-pixels 120000000 allows"),
        ("exploding_text.png", "Decompressed data too large"),
    ],
)
def test_the_reason_is_said_in_words(odd_files, name, words):
    assert str(refusal_of(odd_files[0] / name)).startswith(words)


def test_a_photo_of_30000_pixels_a_side_is_read_within_the_limit_and_named_above_it(tmp_path):
    path = tmp_path / "wide.png"
    path.write_bytes(bombs.png(30_000, 20))
    assert pixels_of(path).shape == (20, 30_000, 3)
    assert str(refusal_of(path, max_pixels=599_999)) == "30000 x 20 pixels, more than --max-pixels 599999 allows"


def test_a_tile_and_a_format_that_takes_more_memory_than_the_header_says_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(bombs.tiled_tiff(4000))
    assert "a tile of 16000000 pixels, more than" in str(refusal_of(tmp_path / "a.tif", max_pixels=10**6))
    Image.new("RGB", (100, 100)).save(tmp_path / "a.jp2")
    monkeypatch.setattr(photo_files, "_SLACK", 0)
    assert "as JPEG2000 it takes" in str(refusal_of(tmp_path / "a.jp2", max_pixels=10_000))
    with (tmp_path / "huge.webp").open("wb") as file:
        file.truncate(10**12)
    assert "the file is 1000000 MB, above the" in str(refusal_of(tmp_path / "huge.webp"))


def test_a_raw_photo_of_which_only_the_preview_can_be_read_is_none(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.nef")
    assert "only a preview can be read" in str(refusal_of(tmp_path / "a.nef"))


def test_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, words in ((tmp_path / "pipe.jpg", "it is a named pipe"), (Path("/dev/zero"), "it is a device")):
        assert str(refusal_of(path)) == words
    assert str(refusal_of(tmp_path / "gone.jpg")) == "No such file or directory"


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.setattr(Path, "stat", lambda path: os.stat_result([0o100644, *[0] * 9]))
    refused: list[Unreadable] = []
    thread = threading.Thread(target=lambda: refused.append(refusal_of(tmp_path / "pipe.jpg")), daemon=True)
    thread.start()
    thread.join(5)
    assert list(map(str, refused)) == ["it is a named pipe"]


def test_memory_is_set_aside_while_the_pixels_are_looked_at_and_given_back(tmp_path):
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    taken: list[int] = []
    with_pixels(str(tmp_path / "a.png"), lambda pixels: taken.append(PHOTO_MEMORY._taken))
    assert taken[0] >= 18 * 100 * 50
    assert PHOTO_MEMORY._taken == 0


def test_what_fails_on_the_pixels_is_said_of_the_photo(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def fail(pixels):
        raise MemoryError

    with pytest.raises(Unreadable, match="there is not enough memory for it"):
        with_pixels(str(tmp_path / "a.png"), fail)
