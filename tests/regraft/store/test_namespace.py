import errno
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.core.errors import RegraftError
from regraft.core.files import put_in_place
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import Shard, key_of
from tests.support.store import KEYS, VALUES

Open = Callable[..., Namespace]


@pytest.fixture
def open_store(tmp_path: Path) -> Open:
    """A function that opens the same store again, as another process does."""
    return lambda **facts: open_namespace(tmp_path, "features", facts, shape=(4,), dtype="float32")


@pytest.fixture
def store(open_store: Open) -> Namespace:
    """A store of two shards: keys 0 to 2, which took three seconds, and keys 3 and 4."""
    store = open_store()
    for part, seconds in ((slice(0, 3), 3.0), (slice(3, 5), 1.0)):
        store.append(KEYS[part], VALUES[part], seconds=seconds)
        store.flush()
    return store


def shards(store: Namespace) -> list[Path]:
    """The shards, the larger one first."""
    return sorted(store.folder.glob("*.arrow"), key=lambda path: -path.stat().st_size)


def damage(path: Path, position: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[position] ^= 0xFF
    path.write_bytes(contents)


def position_of_a_value(path: Path) -> int:
    return path.read_bytes().index(VALUES[1].tobytes())


def test_rows_come_back_in_the_order_asked_for(store, open_store):
    chosen = [4, 0, 2, 0]
    assert np.array_equal(open_store().read([KEYS[index] for index in chosen]), VALUES[chosen])


def test_what_is_missing_is_named_once_and_in_order(store):
    assert store.missing([KEYS[5], KEYS[0], KEYS[5], KEYS[1]]) == [KEYS[5]]


def test_views_of_one_image_are_different_rows():
    digest = "ab" * 32
    assert key_of(digest, 0) != key_of(digest, 1)


def test_rows_are_not_there_for_others_before_they_are_flushed(open_store):
    store = open_store()
    store.append(KEYS[:1], VALUES[:1], seconds=0)
    assert open_store().missing(KEYS[:1]) == KEYS[:1]


def test_the_time_that_rows_took_is_kept_with_them(store, open_store):
    # Three rows took 3 s, two took 1 s; the sixth is not there.
    assert open_store().seconds_for([KEYS[0], KEYS[1], KEYS[3], KEYS[5]]) == pytest.approx(2.5)


def test_other_facts_are_another_namespace(store, open_store):
    assert len(open_store(weights="other")) == 0


def test_a_shard_that_another_process_is_still_writing_is_left_alone(store, open_store):
    # `replacing` writes beside the final name; a reader that took this for damage would break the writer's rename.
    unfinished = store.folder / f".{'0' * 32}.4711.tmp.arrow"
    unfinished.write_bytes(shards(store)[0].read_bytes()[:100])
    open_store()
    assert unfinished.exists()


def test_a_damaged_shard_is_set_aside_and_its_rows_are_missing(store, open_store):
    path = shards(store)[0]
    damage(path, position_of_a_value(path))
    assert open_store().missing(KEYS) == [*KEYS[:3], KEYS[5]]
    assert (path.exists(), path.with_suffix(".damaged").exists()) == (False, True)


def test_damage_while_the_store_is_in_use_is_an_error_that_says_what_to_do(store, open_store):
    reader, path = open_store(), shards(store)[0]
    damage(path, position_of_a_value(path))
    with pytest.raises(
        RegraftError,
        match=r"was damaged or removed while it was in use\. Its rows are missing now: run the same command again",
    ):
        reader.read(KEYS[:3])


def test_whichever_byte_of_a_shard_is_damaged_no_wrong_value_is_read_and_nothing_stops(store, root):
    # In a process of its own: damage to the header of an Arrow file could end the whole process by a signal.
    path = shards(store)[0]
    last = path.stat().st_size - 1
    program = f"""
import numpy as np
from pathlib import Path
from regraft.store.namespace import open_namespace
path, keys = Path({str(path)!r}), {KEYS[:3]!r}
good, values = path.read_bytes(), np.arange(12, dtype=np.float32).reshape(3, 4)
for mask in (0xFF, 0x01):
    for position in range(len(good)):
        print(mask, position, flush=True)
        path.write_bytes(good[:position] + bytes([good[position] ^ mask]) + good[position + 1 :])
        store = open_namespace(Path({str(path.parents[1])!r}), "features", {{}}, shape=(4,), dtype="float32")
        missing = set(store.missing(keys))
        rows = [index for index in range(3) if keys[index] not in missing]
        assert (store.read([keys[index] for index in rows]) == values[rows]).all()
        store.seconds_for(keys)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split("\n")[-2]) == (0, f"{0x01} {last}"), done.stderr[-2000:]


def test_presence_is_known_without_reading_a_value(store, open_store, monkeypatch):
    damage(shards(store)[0], position_of_a_value(shards(store)[0]))
    reader = open_store()
    assert reader.missing(KEYS, verify=False) == [KEYS[5]]  # what a look at the values would have refuted
    monkeypatch.setattr("os.preadv", lambda *_: pytest.fail("a value was read"))
    assert reader.missing(KEYS, verify=False) == [KEYS[5]]


def test_opening_a_store_and_reading_from_it_writes_nothing(store, open_store, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    reader = open_store()
    reader.missing(KEYS)
    reader.read(KEYS[:5])
    open_store(weights="other")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("damage", [lambda text: text[:20], None])
def test_a_damaged_or_missing_description_is_written_again_by_who_knows_the_facts(store, open_store, damage):
    description = store.folder / "namespace.json"
    before = description.read_text()
    description.write_text(damage(before)) if damage else description.unlink()
    open_store()
    assert description.read_text() == before


def rows_of(keys: bytes, *checksums: int) -> Any:
    """What the index sees of a shard."""
    keys_of = np.frombuffer(keys, "S34")
    checks = np.array(checksums or range(len(keys_of)), np.uint64)
    return type("Rows", (), {"keys": keys_of, "checksums": checks, "__len__": lambda self: len(self.keys)})()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("at_once", [True, False])
def test_of_rows_that_machines_computed_differently_the_smallest_checksum_counts_in_any_order(order, at_once):
    from regraft.store.index import Index

    shards = [rows_of(KEYS[0] + KEYS[1], 7, 9), rows_of(KEYS[1], 3), rows_of(KEYS[1] + KEYS[0], 5, 8)]
    index = Index([shards[number] for number in order] if at_once else ())
    for place, number in enumerate(order if not at_once else ()):
        index.add(place, shards[number])
    found, rows = index.find(KEYS[:3])
    assert [order[number] for number in found[:2].tolist()] == [0, 1]
    assert (rows[:2].tolist(), found[2], len(index)) == ([0, 0], -1, 2)


def test_a_full_disk_is_an_error_that_says_what_to_do_and_leaves_nothing_half_written(tmp_path):
    store = open_namespace(tmp_path, "wide", {}, shape=(300_000,), dtype="uint8")
    store.append(KEYS, np.ones((6, 300_000), np.uint8), seconds=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)  # a limit on the size of files takes the place of a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(RegraftError, match=r"There is no room in .*/wide-\w+, where 1\.8 MB are needed"):
            store.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(store.folder.glob("*arrow")) == []
    assert list(store.folder.glob(".*")) == []


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that takes the right to write away; changing modes would not hinder root."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    def take_away() -> None:
        monkeypatch.setattr(Path, "replace", refuse)
        monkeypatch.setattr(Path, "mkdir", refuse)

    return take_away


def test_writing_to_a_read_only_store_is_an_error_that_says_what_to_do(store, read_only):
    read_only()
    store.append(KEYS[5:], VALUES[5:], seconds=0)
    with pytest.raises(
        RegraftError, match=rf"{store.folder} cannot be written to \(Permission denied\).*Make it writable"
    ):
        store.flush()


@pytest.mark.parametrize("moment", ["shards.put_in_place", "shard_folder.Shard"])
def test_a_store_that_is_deleted_while_it_is_written_to_is_an_error_that_says_what_to_do(store, monkeypatch, moment):
    go_on = {"shards.put_in_place": put_in_place, "shard_folder.Shard": Shard}[moment]
    monkeypatch.setattr(f"regraft.store.{moment}", lambda *arguments: shutil.rmtree(store.folder) or go_on(*arguments))
    store.append(KEYS[5:], VALUES[5:], seconds=0)
    with pytest.raises(RegraftError, match=f"{store.folder} was removed while it was written to.*same command again"):
        store.flush()
