import errno
import gc
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from regraft.core.files import sha256_of
from regraft.core.provenance import take_snapshot
from regraft.photos import scan, scan_facts
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.inspectors import Inspectors
from regraft.photos.known import Learning
from regraft.store.facts import Facts
from tests.support.library import scan_folder

PHOTOS = ["cat/a.png", "cat/b.png", "dog/c.png"]
NEW = ["ant/first.png", "cat/between.png", "dog/last.png", "elk/after.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder of three small images, each with its own content and all of one size."""
    for number, path in enumerate(PHOTOS):
        file = tmp_path / "raw" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 9, 9)).save(file.with_suffix(".bmp"))
        file.with_suffix(".bmp").rename(file)
    return tmp_path / "raw"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The scan's clock; it is a minute ahead, so that files that were just written are old to the scan."""
    clock = SimpleNamespace(ahead=60)
    clock.time_ns = lambda: time.time_ns() + clock.ahead * 10**9
    monkeypatch.setattr(scan, "time", clock)
    return clock


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """The files that were read, in order of path; clear it between scans."""
    paths, inspect = [], Inspectors.inspect

    def record(inspectors: Inspectors, path: Path):
        paths.append(path.relative_to(folder).as_posix())
        return inspect(inspectors, path)

    monkeypatch.setattr(Inspectors, "inspect", record)
    return paths


@pytest.fixture
def cache(folder: Path, clock: SimpleNamespace, looked: list[str]) -> Path:
    """What a first scan has found."""
    cache = folder.parent / "store" / "scan.parquet"
    manifest_of(folder, cache)
    looked.clear()
    return cache


def manifest_of(
    folder: Path, cache: Path | None, *, max_pixels: int = 1000, threads: Threads | None = None
) -> pd.DataFrame:
    return scan_folder(folder, max_pixels=max_pixels, threads=threads or Threads(1), cache=cache)[1].set_index("path")


def flip_a_bit(path: Path, position: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[position] ^= 1
    path.write_bytes(contents)


# What is read, and what is not.


def test_only_new_files_are_read(folder, cache, looked):
    shutil.copy(folder / "cat/a.png", folder / "dog/new.png")
    manifest_of(folder, cache)
    assert looked == ["dog/new.png"]


def test_photos_that_another_clone_decoded_are_neither_decoded_nor_written_down_again(folder, cache, looked, tmp_path):
    def scan_of_a_clone() -> tuple[pd.DataFrame, list[Path]]:
        learning = Learning(Facts(tmp_path / "facts", None, max_pixels=1000))
        manifest = scan_folder(folder, max_pixels=1000, learning=learning)[1]
        return manifest, sorted((tmp_path / "facts").rglob("*.parquet"))

    first, written = scan_of_a_clone()
    assert sorted(looked) == PHOTOS
    assert len(written) == 1
    looked.clear()
    second, known = scan_of_a_clone()
    assert looked == []
    assert known == written
    pd.testing.assert_frame_equal(first, second)


def test_a_clone_that_writes_the_cache_of_a_shared_store_at_the_same_moment_changes_nothing(
    folder, clock, monkeypatch, tmp_path
):
    other = tmp_path / "other" / "raw"
    for path, source in zip(PHOTOS, reversed(PHOTOS), strict=True):
        (other / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / source, other / path)
    write_text = scan_facts.write_text

    def write_and_be_overtaken(path: Path, text: str) -> None:
        write_text(path, text)
        monkeypatch.setattr(scan_facts, "write_text", write_text)
        manifest_of(other, cache)

    cache, expected = tmp_path / "scan.parquet", manifest_of(folder, None)
    manifest_of(folder, cache)
    (folder / "cat/a.png").touch()
    monkeypatch.setattr(scan_facts, "write_text", write_and_be_overtaken)
    pd.testing.assert_frame_equal(manifest_of(folder, cache), expected)


def test_one_byte_that_changed_is_seen_although_size_and_mtime_are_as_before(folder, cache):
    file = folder / "cat/a.png"
    status = file.stat()
    flip_a_bit(file, -1)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert manifest_of(folder, cache).digest["cat/a.png"] == sha256_of(file)


def test_a_link_that_leads_elsewhere_now_is_seen(folder, cache):
    link = folder / "cat/link.png"
    for target in ("a.png", "b.png"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert manifest_of(folder, cache).digest["cat/link.png"] == sha256_of(folder / "cat" / target)


def test_what_was_read_before_an_interruption_is_remembered(folder, cache, looked):
    cache.unlink()

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manifest_of(folder, cache, threads=Threads(1, stop))
    looked.clear()
    manifest_of(folder, cache)
    assert looked == PHOTOS[2:]


# Rows are the same, remembered or read.


def test_a_remembered_manifest_equals_one_that_was_read(folder, clock, looked):
    (folder / "cat/broken.jpg").write_bytes(b"no image")
    (folder / "cat/empty.jpg").touch()
    (folder / "cat/notes.txt").write_text("no image")
    (folder / "cat/.hidden.png").write_text("no image")
    Image.new("RGB", (99, 99)).save(folder / "cat/large.png")
    Image.new("L", (8, 6)).save(folder / "loose.png")
    cache = folder.parent / "scan.parquet"
    first, second = (manifest_of(folder, cache) for _ in range(2))
    assert len(looked) == 8  # as many as were read the first time
    pd.testing.assert_frame_equal(second, first)
    pd.testing.assert_frame_equal(manifest_of(folder, None), first)


def test_a_file_that_moved_has_its_new_label_and_the_reason_of_its_new_place(folder, cache):
    (folder / "cat/a.png").rename(folder / "dog/a.png")
    (folder / "cat/b.png").rename(folder / "b.png")
    manifest = manifest_of(folder, cache)
    assert manifest.label["dog/a.png"] == "dog"
    assert manifest.reason["b.png"] == "not inside a class folder"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_facts, "_PART", 2)


def test_files_that_come_and_go_leave_the_facts_of_the_others_as_they_are(folder, small_parts, clock, looked):
    cache = folder.parent / "scan.parquet"
    for name in NEW:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "cat/b.png", folder / name)
        pd.testing.assert_frame_equal(manifest_of(folder, cache), manifest_of(folder, None))
    for path in (*PHOTOS[:2], NEW[1]):
        (folder / path).unlink()
        pd.testing.assert_frame_equal(manifest_of(folder, cache), manifest_of(folder, None))
    looked.clear()
    manifest_of(folder, cache)
    assert looked == []


def test_of_files_that_the_cache_knows_no_more_is_in_memory_than_one_part(folder, small_parts, cache):
    for name in NEW:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "cat/b.png", folder / name)
    paths = sorted([*PHOTOS, *NEW])
    for _ in ("read", "known"):
        limits = DecodeLimits(max_pixels=1000, max_seconds=20)
        found = scan.scan(folder, paths, limits=limits, threads=Threads(1), cache=cache)
        assert [facts.digest for _, facts in found.items(paths)] == [sha256_of(folder / path) for path in paths]
        gc.collect()
        assert sum(isinstance(each, scan_facts.FileFacts) for each in gc.get_objects()) <= 2


# Times that say nothing.


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_file_that_was_written_within_two_seconds_of_the_scan_is_read_again(folder, cache, looked, clock, ahead):
    cache.unlink()
    for path in PHOTOS:
        (folder / path).touch()
    written = max((folder / path).stat().st_ctime_ns for path in PHOTOS)
    later, clock.time_ns = clock.time_ns, lambda: written + ahead * 10**9
    manifest_of(folder, cache)
    clock.time_ns = later
    looked.clear()
    manifest_of(folder, cache)
    assert sorted(looked) == PHOTOS


def test_everything_is_read_again_after_the_clock_was_set_back(folder, cache, looked, clock):
    clock.ahead = 30
    manifest_of(folder, cache)
    assert sorted(looked) == PHOTOS


def test_a_file_that_is_written_while_it_is_read_is_read_again(folder, cache, looked, monkeypatch):
    cache.unlink()
    record = Inspectors.inspect

    def write_meanwhile(inspectors: Inspectors, path: Path):
        facts = record(inspectors, path)
        if path.name == "a.png":
            flip_a_bit(path, -1)
        return facts

    with monkeypatch.context() as patch:
        patch.setattr(Inspectors, "inspect", write_meanwhile)
        manifest_of(folder, cache)
    assert manifest_of(folder, cache).digest["cat/a.png"] == sha256_of(folder / "cat/a.png")


def test_a_file_that_could_not_be_read_once_is_read_again(folder, cache, monkeypatch):
    cache.unlink()

    def fail(inspectors: Inspectors, path: Path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Inspectors, "inspect", fail)
        assert set(manifest_of(folder, cache).reason) == {"cannot be read: Input/output error"}
    assert set(manifest_of(folder, cache).verdict) == {"use"}


# The cache as a whole.


DAMAGES = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "other bytes": lambda path: path.write_bytes(b"\xff" * 99),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one bit": lambda path: flip_a_bit(path, path.stat().st_size // 3),
}


@pytest.mark.parametrize("name", ["scan.parquet", "scan.seal"])
def test_what_is_damaged_is_as_good_as_absent(folder, cache, looked, name):
    before = manifest_of(folder, cache)
    for damage, do_damage in DAMAGES.items():
        do_damage(cache.with_name(name))
        pd.testing.assert_frame_equal(manifest_of(folder, cache), before)
        assert sorted(looked) == PHOTOS, damage
        looked.clear()
        manifest_of(folder, cache)
        assert looked == [], damage


def test_another_limit_of_pixels_is_applied_to_files_that_were_read_before(folder, cache):
    assert set(manifest_of(folder, cache, max_pixels=10).verdict) == {"quarantine"}


@pytest.mark.parametrize("what", ["modules", "versions"])
def test_other_code_or_another_version_of_pillow_reads_everything_again(folder, cache, looked, monkeypatch, what):
    now = take_snapshot()
    modules, versions = now.modules | {"regraft.photos.decoder": b"new = 1"}, now.versions | {"pillow": "9.9"}
    changed = replace(now, modules=modules) if what == "modules" else replace(now, versions=versions)
    monkeypatch.setattr("regraft.core.provenance.take_snapshot", lambda: changed)
    manifest_of(folder, cache)
    assert sorted(looked) == PHOTOS
