"""No file takes more memory than its header explains, and all photos in work share one budget."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from regraft.photos import dataset as dataset_module
from regraft.photos import inspectors as inspectors_module
from regraft.photos import memory
from regraft.photos.decoder import DecodeLimits, ImageFacts
from regraft.photos.inspectors import Inspectors
from regraft.photos.memory import LARGEST_BYTES_PER_PIXEL, Budget
from tests.support import bombs

LIMITS = DecodeLimits(120_000_000, 60)


@pytest.fixture
def inspected(tmp_path: Path) -> Callable[[bytes], ImageFacts]:
    """A function that lets a process inspect a file with the limits of params.yaml."""

    def inspect(contents: bytes) -> ImageFacts:
        (tmp_path / "file").write_bytes(contents)
        with Inspectors(LIMITS) as inspectors:
            return inspectors.inspect(tmp_path / "file")

    return inspect


def jpeg2000_that_holds_more(side: int) -> bytes:
    """A JPEG 2000 whose box says 16 x 16 and whose codestream has this side."""
    file = BytesIO()
    Image.new("RGB", (side, side)).save(file, "JPEG2000")
    contents = bytearray(file.getvalue())
    position = contents.index(b"ihdr") + 4
    contents[position : position + 8] = (16).to_bytes(4, "big") * 2
    return bytes(contents)


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (bombs.icon(3000), "not an image that can be read"),
        (bombs.tiled_tiff(11_000), "a tile of 121000000 pixels is above validate_data.max_pixels (120000000)"),
        (jpeg2000_that_holds_more(2000), "broken data stream"),
        (bombs.png(11_000, 11_000, colour=0), "11000 x 11000 pixels is above"),
    ],
)
def test_what_is_inside_of_a_file_cannot_be_larger_than_max_pixels(inspected, contents, problem):
    assert problem in (inspected(contents).problem or "")


def test_a_file_that_unfolds_to_more_than_its_header_explains_is_to_blame_for_it(inspected):
    assert "more memory than its header explains" in (
        inspected(bombs.png_with_exif_of_many_numbers(4_000_000)).problem or ""
    )


@pytest.mark.parametrize(("bits", "colour"), [(16, 0), (16, 6)])
def test_an_ordinary_png_of_the_largest_size_takes_no_more_than_its_weight(inspected, bits, colour):
    """Four such files of 230 to 920 kB ended a run at 4 GB when its own process drew their thumbnails."""
    contents = bombs.png(10_900, 10_900, bits=bits, colour=colour)
    assert inspected(contents).problem is None


def test_padding_counts_as_memory_since_files_are_read_whole(tmp_path):
    Image.new("RGB", (10, 9)).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("ab") as file:
        file.truncate(100 * LARGEST_BYTES_PER_PIXEL * 90)
    with Inspectors(DecodeLimits(90, 20)) as inspectors:
        assert "as PNG it takes" in (inspectors.inspect(tmp_path / "a.png").problem or "")


def test_a_machine_without_memory_is_no_verdict_on_the_file(tmp_path, monkeypatch):
    # The inspector starts with a limit of its own on all its memory, which is then the machine's.
    (tmp_path / "a.png").write_bytes(bombs.png(10_000, 10_000))
    with Inspectors(LIMITS) as inspectors:
        Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
        inspectors.inspect(tmp_path / "b.png")
        (process,) = [child for child in psutil.Process().children() if "regraft.photos.inspector" in child.cmdline()]
        mapped = process.memory_info().vms
        process.rlimit(psutil.RLIMIT_AS, (mapped + 50 * 2**20, mapped + 50 * 2**20))
        with pytest.raises(OSError, match=r"memory|crashed"):
            inspectors.inspect(tmp_path / "a.png")
        assert inspectors.inspect(tmp_path / "a.png").problem is None  # another process, without that limit


def test_no_more_is_taken_than_the_budget_has():
    budget, taken, most, lock = Budget(100), 0, 0, threading.Lock()

    def work(needed: int) -> None:
        nonlocal taken, most
        with budget.take(needed):
            with lock:
                taken += needed
                most = max(most, taken)
            threading.Event().wait(0.002)
            with lock:
                taken -= needed

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, np.random.default_rng(0).integers(1, 60, 80).tolist()))
    assert 60 < most <= 100


def test_what_needs_more_than_there_is_goes_alone_and_is_not_overtaken_for_ever():
    budget, order = Budget(100), []
    first = threading.Event()

    def small(name: str) -> None:
        with budget.take(60):
            order.append(name)
            first.wait(0.5 if name == "a" else 0)

    def large() -> None:
        with budget.take(500):
            order.append("large")

    threads = [threading.Thread(target=small, args=["a"]), threading.Thread(target=large)]
    threads += [threading.Thread(target=small, args=[name]) for name in "bcd"]
    for thread in threads:
        thread.start()
        threading.Event().wait(0.05)  # they come in this order
    for thread in threads:
        thread.join(10)
    assert order == ["a", "large", "b", "c", "d"]


def test_files_that_are_inspected_share_the_budget(tmp_path, monkeypatch):
    budget = Budget(10**9)
    monkeypatch.setattr(inspectors_module, "PHOTO_MEMORY", budget)
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    asked, take = [], budget.take
    monkeypatch.setattr(budget, "take", lambda needed: asked.append(needed) or take(needed))
    with Inspectors(LIMITS) as inspectors:
        inspectors.inspect(tmp_path / "a.png")
        inspectors.thumbnail(tmp_path / "a.png", side=10)
    assert asked == [18 * 200 * 100 + (tmp_path / "a.png").stat().st_size] * 2


@pytest.mark.parametrize(
    ("line", "file"), [("0::/job", "memory.max"), ("0::/job/part", "memory.max"), ("4:memory:/job", "memory.max")]
)
def test_the_limit_of_a_cgroup_around_the_process_counts(tmp_path, monkeypatch, line, file):
    (tmp_path / "groups").write_text(f"1:cpu:/else\n{line}\n")
    (tmp_path / "job" / "part").mkdir(parents=True)
    (tmp_path / "job" / file).write_text("123456789\n")
    (tmp_path / "job" / "part" / file).write_text("max\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "_LIMITS", {"": (tmp_path, file), "memory": (tmp_path, file)})
    assert memory._allowed_memory() == 123456789


def test_a_thumbnail_comes_from_another_process_and_a_broken_file_has_none(tmp_path, photo):
    Image.fromarray(photo(0, 300, 200)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    with Inspectors(LIMITS) as inspectors:
        whole, square = (inspectors.thumbnail(tmp_path / "a.png", side=60, is_square=flag) for flag in (False, True))
        assert inspectors.thumbnail(tmp_path / "b.png", side=60) is None
        assert inspectors.thumbnail(tmp_path / "gone.png", side=60) is None
    assert whole is not None
    assert square is not None
    assert (whole.shape, square.shape) == ((40, 60, 3), (60, 60, 3))
    expected = np.asarray(Image.fromarray(photo(0, 300, 200)).resize((60, 40), Image.Resampling.BOX))
    assert np.abs(whole.astype(int) - expected).mean() < 3  # another filter


def test_photos_that_are_read_for_training_share_the_budget(dataset, monkeypatch):
    first, second = dataset.photos()[:2]
    budget = Budget(1)  # every photo goes alone
    monkeypatch.setattr(dataset_module, "PHOTO_MEMORY", budget)
    inside, second_is_in = threading.Event(), threading.Event()

    def read_second() -> None:
        inside.wait(10)
        with dataset.opened(second):
            second_is_in.set()

    thread = threading.Thread(target=read_second)
    thread.start()
    with dataset.opened(first):
        inside.set()
        assert not second_is_in.wait(0.3)
    thread.join(10)
    assert second_is_in.is_set()
