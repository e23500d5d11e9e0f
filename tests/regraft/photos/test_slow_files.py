import errno
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from regraft.photos import scan, slow_files
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.inspectors import Inspectors
from regraft.photos.manifest import build_manifest, write_manifest

DAY = 86_400
SECONDS = 20.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the scan, `days` ahead of the real one; and that of decoding, which only `slow` moves."""
    clock = SimpleNamespace(days=1.0, spent=0.0, start=(time.time_ns() // (DAY * 10**9)) * DAY * 10**9)
    clock.time_ns = lambda: clock.start + int(clock.days * DAY * 10**9)
    clock.monotonic = lambda: clock.spent
    monkeypatch.setattr(scan, "time", clock)
    monkeypatch.setattr(slow_files, "time", clock)
    return clock


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace) -> list[tuple[str, float]]:
    """What was decoded, with the time that it was given. Files with slow in their names take all of it."""
    tried, inspect = [], Inspectors.inspect

    def pretend(inspectors: Inspectors, path: Path):
        seconds = inspectors._limits.max_seconds
        tried.append((path.name, seconds))
        if "slow" in path.name:
            clock.spent += seconds
            raise TimeoutError(0, f"decoding takes longer than {seconds:g} s (validate_data.max_seconds)")
        if "crash" in path.name:
            clock.spent += seconds / 2
            raise OSError(0, "the decoder crashed on it (SIGSEGV)")
        if "disk" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return inspect(inspectors, path)

    monkeypatch.setattr(Inspectors, "inspect", pretend)
    return tried


@pytest.fixture
def look(tmp_path: Path, clock: SimpleNamespace, tried: list) -> Callable[..., pd.DataFrame]:
    """Scan a folder again and return the manifest; a scan is a day long after the one before unless told otherwise."""

    def look(max_seconds: float = SECONDS) -> pd.DataFrame:
        tried.clear()
        limits = DecodeLimits(max_pixels=10**6, max_seconds=max_seconds)
        _, manifest = build_manifest(
            tmp_path / "raw", limits=limits, threads=Threads(1), cache=tmp_path / "scan.parquet"
        )
        return manifest.set_index("path")

    return look


def add(folder: Path, *names: str) -> None:
    (folder / "raw/cat").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (8, 6), (number % 256, number // 256, 9)).save(folder / "raw/cat" / name)


def test_a_file_that_was_too_slow_is_tried_after_1_2_4_8_16_and_then_every_30_days(tmp_path, look, tried, clock):
    add(tmp_path, "good.png", "slow.png")
    days = []
    for day in range(65):
        clock.days = day + 1 + (day % 2) / 3  # nights begin now earlier, now later
        look()
        if ("slow.png", SECONDS) in tried:
            days.append(day)
    assert days == [0, 1, 3, 7, 15, 31, 61]


def test_the_reason_says_that_it_was_time_and_when_it_is_tried_again(tmp_path, look, clock):
    add(tmp_path, "slow.png")
    clock.start = 1_764_028_800 * 10**9  # 2025-11-25, before any file of this test was written ...
    clock.days = 3650  # ... so ten years later: 2035-11-23
    first = look().loc["cat/slow.png"]
    assert first.verdict == "quarantine"
    assert first.reason == (
        "not decoded: decoding takes longer than 20 s (validate_data.max_seconds); tried once, and again when photos "
        "are validated on or after 2035-11-24"
    )
    clock.days += 1
    assert (
        look()
        .reason["cat/slow.png"]
        .endswith("tried 2 times, and again when photos are validated on or after 2035-11-26")
    )
    assert look().digest["cat/slow.png"]


def test_more_time_tries_it_at_once_and_less_time_does_not(tmp_path, look, tried):
    add(tmp_path, "slow.png")
    look()
    look(max_seconds=10)
    assert tried == []
    look(max_seconds=60)
    assert tried == [("slow.png", 60)]


def test_a_changed_file_is_tried_at_once(tmp_path, look, tried):
    add(tmp_path, "slow.png")
    look()
    look()
    assert tried == []
    (tmp_path / "raw/cat/slow.png").touch()
    look()
    assert tried == [("slow.png", SECONDS)]


def test_a_file_that_crashes_the_decoder_is_not_tried_every_night_either(tmp_path, look, tried):
    add(tmp_path, "crash.png")
    assert "the decoder crashed on it (SIGSEGV); tried once" in look().reason["cat/crash.png"]
    look()
    assert tried == []


# Many of them.


def test_hundreds_of_slow_files_cost_a_first_scan_a_bounded_time(tmp_path, look, clock):
    add(tmp_path, *(f"slow{number}.png" for number in range(300)))
    manifest = look()
    assert clock.spent <= 3 * 16 * SECONDS + 1
    assert set(manifest.verdict) == {"quarantine"}
    assert all("not decoded" in reason for reason in manifest.reason)


def test_ordinary_photos_are_read_beside_hundreds_of_slow_files(tmp_path, look):
    add(tmp_path, *(f"slow{number:03}.png" for number in range(300)), *(f"t{number}.png" for number in range(5)))
    manifest = look()
    assert manifest.verdict[manifest.verdict == "use"].index.tolist() == [f"cat/t{number}.png" for number in range(5)]


def test_who_had_no_chance_is_told_so_and_has_one_in_the_next_run(tmp_path, look, tried, clock):
    names = [f"slow{number:02}.png" for number in range(40)]
    add(tmp_path, *names)
    reasons = look().reason
    assert reasons["cat/slow39.png"].startswith("not decoded yet: files that are too slow have taken the time of")
    look()  # the same day
    assert tried == [(name, SECONDS) for name in names[16:32]]
    look()
    assert tried == [(name, SECONDS) for name in names[32:]]
    look()
    assert tried == []


def test_new_photos_come_before_what_was_too_slow(tmp_path, look, tried, clock):
    add(tmp_path, "a slow.png")
    look()
    add(tmp_path, "b.png")
    clock.days += 1
    look()
    assert tried == [("b.png", SECONDS), ("a slow.png", SECONDS)]


def test_the_manifest_has_the_same_bytes_on_another_day_while_nothing_is_due(tmp_path, look, clock):
    add(tmp_path, "good.png", "slow.png")
    for day, name in ((0, "a"), (1, "b"), (1.9, "c"), (2.5, "d")):
        clock.days = 1 + day
        write_manifest(tmp_path / name, "classes", look())
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()  # the reason says another day
