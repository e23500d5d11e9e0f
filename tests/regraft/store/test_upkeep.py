import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from regraft.core.errors import Busy, RegraftError
from regraft.core.files import temporary_beside
from regraft.store import overview
from regraft.store.leases import store_in_use
from regraft.store.located import LocatedRows
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.remote import Remote
from regraft.store.shards import as_array, key_of
from regraft.store.upkeep import collect, compact
from regraft.store.uses import record_use, records

KEYS = [key_of(hashlib.sha256(bytes([number])).hexdigest()) for number in range(12)]
VALUES = np.arange(48, dtype=np.float32).reshape(12, 4)
VERSION, OTHER = "a" * 32, "b" * 32
Machine = Callable[..., Namespace]
local = pytest.mark.parametrize("shared", ["local"], indirect=True)
two_machines = pytest.mark.parametrize("shared", ["shared"], indirect=True)


@pytest.fixture(params=["local", "shared"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """The address of a shared root, or None: whatever is claimed here holds with and without one."""
    return f"memory://{tmp_path}/shared" if request.param == "shared" else None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def opened(root: Path, shared: str | None) -> Machine:
    """A function that opens a namespace of the store anew."""
    return lambda kind="features": open_namespace(root, kind, {}, shape=(4,), dtype="float32", shared=shared)


@pytest.fixture
def store(opened: Machine) -> Namespace:
    """Four shards of three rows each; a row took as many seconds as its shard's number."""
    store = opened()
    for number in range(4):
        part = slice(3 * number, 3 * number + 3)
        store.append(KEYS[part], VALUES[part], seconds=3.0 * number)
        store.flush()
    return store


def use(store: Namespace, root: Path, shared: str | None, rows: list[int], version: str = VERSION) -> None:
    record_use(root, version, [store], [KEYS[row] for row in rows], shared=shared)


def settle(root: Path, shared: str | None) -> None:
    """Make all records old."""
    for path in (root / "uses").iterdir():
        os.utime(path, (0, 0))
    for path, file in MemoryFileSystem.store.items():
        if shared and path.startswith(f"{shared.removeprefix('memory://')}/uses/") and path.endswith(".arrow"):
            file.modified = datetime(2020, 1, 1, tzinfo=UTC)


def versions_in(root: Path, shared: str | None) -> set[str]:
    return {record.version for record in records(root, Remote(shared) if shared else None)}


def rows_of(store: Namespace) -> list[int]:
    """The rows that are there, each of them read and right."""
    missing = set(store.missing(KEYS))
    rows = [row for row, key in enumerate(KEYS) if key not in missing]
    assert np.array_equal(store.read([KEYS[row] for row in rows]), VALUES[rows])
    return rows


def shards(store: Namespace) -> set[str]:
    return {path.name.partition(".")[0] for path in store.folder.glob("*.arrow")}


# gc


def test_gc_keeps_the_rows_of_wanted_versions_and_removes_the_others(store, opened, root, shared):
    use(store, root, shared, [0, 1, 2, 4])
    use(store, root, shared, [9], OTHER)
    collect(root, shared, {VERSION: "the working copy", OTHER: "git 1234567"}, really=True)
    assert rows_of(opened()) == [0, 1, 2, 4, 9]


def test_a_dry_run_says_what_would_be_freed_and_removes_nothing(store, opened, root, shared, capsys):
    use(store, root, shared, [0, 1, 2, 4])
    before = shards(store)
    collect(root, shared, {VERSION: "here"}, really=False)
    out = capsys.readouterr().out
    assert f"{store.folder.name}: 8 of 12 rows" in out
    assert "would be freed. This was a dry run; --yes does it." in out
    assert (shards(store), rows_of(opened())) == (before, list(range(12)))


def test_gc_removes_namespaces_and_records_that_nothing_needs(store, opened, root, shared):
    other = opened("activations")
    other.append(KEYS[:1], VALUES[:1], seconds=0)
    other.flush()
    use(store, root, shared, [0])
    use(other, root, shared, [0], OTHER)
    settle(root, shared)
    collect(root, shared, {VERSION: "here"}, really=True)
    remote = Remote(shared) if shared else None
    assert not other.folder.exists()
    assert versions_in(root, shared) == {VERSION}
    assert remote is None or other.folder.name not in remote.folders()


def test_a_damaged_record_stops_gc_before_anything_is_removed(store, opened, root, shared):
    use(store, root, shared, [0])
    (path,) = (root / "uses").glob(f"{VERSION}-*.arrow")
    position = path.read_bytes().index(KEYS[0])
    damaged = path.read_bytes()[:position] + b"?" + path.read_bytes()[position + 1 :]
    path.write_bytes(damaged)
    if shared:
        collect(root, shared, {VERSION: "here"}, really=False)  # what the shared root has is sound
        Remote(shared).write(f"uses/{path.name}", damaged)
    with pytest.raises(RegraftError, match=rf"{path.name} is damaged.*Delete it"):
        collect(root, shared, {VERSION: "here"}, really=True)
    assert rows_of(opened()) == list(range(12))


@local
def test_gc_removes_what_killed_writers_left_and_damaged_shards(store, root):
    use(store, root, None, list(range(12)))
    shard, damaged = store.folder / f"{'0123' * 4}.arrow", store.folder / f"{'0' * 16}-1-2-{'0' * 16}.damaged"
    program = f"from pathlib import Path; from regraft.core.files import *; temporary_beside(Path({str(shard)!r}))"
    subprocess.run([sys.executable, "-c", program], check=True)
    left = [*store.folder.glob(".*.tmp.arrow"), store.folder / f".{'0123' * 4}.{2**22 + 1}.tmp.arrow", damaged]
    young, old = temporary_beside(shard), temporary_beside(shard)
    for path in left:
        path.write_bytes(b"?")
    os.utime(old, (0, 0))
    collect(root, None, {VERSION: "here"}, really=True)
    assert [path.exists() for path in (*left, old, young)] == [False, False, False, False, True]


# compact


def test_compact_makes_one_shard_of_many_small_ones(store, opened, root, shared):
    compact(root, shared)
    assert len(shards(store)) == 1
    assert rows_of(opened()) == list(range(12))
    if shared:
        assert [name for name in Remote(shared).sizes(store.folder.name) if name.endswith(".arrow")] == [
            f"{name}.arrow" for name in shards(store)
        ]


@two_machines
def test_another_machine_follows_a_merge(store, root, tmp_path, shared):
    other = open_namespace(tmp_path / "other", "features", {}, shape=(4,), dtype="float32", shared=shared)
    compact(root, shared)
    assert rows_of(other) == list(range(12))  # although the shards that it knew are gone


@pytest.mark.parametrize("command", ["gc", "compact"])
def test_rows_that_a_file_names_stay_although_others_count_by_now(store, opened, root, shared, command):
    named, others = store.checksums(KEYS), opened()
    others.append(KEYS, VALUES + 1, seconds=0)
    others.flush()
    counted = others.read(KEYS)
    assert 0 < (counted == VALUES).all(1).sum() < 12
    use(store, root, shared, list(range(12)))
    for _ in range(2):  # one shard has several rows of a key, the second time
        collect(root, shared, {VERSION: "here"}, really=True) if command == "gc" else compact(root, shared)
        assert np.array_equal(LocatedRows(opened(), as_array(KEYS), named, advice="").read(np.arange(12)), VALUES)
    assert np.array_equal(opened().read(KEYS), counted)


@local
def test_a_reader_that_lists_while_shards_are_merged_misses_nothing(store, opened, root, monkeypatch):
    # The listing is of before the merge, and what it names is gone when it is looked at.
    from regraft.store import shard_folder

    list_shards = shard_folder.shard_paths

    def list_and_merge(folder: Path) -> list[Path]:
        paths = list_shards(folder)
        monkeypatch.setattr(shard_folder, "shard_paths", list_shards)
        compact(root, None)
        return paths

    monkeypatch.setattr(shard_folder, "shard_paths", list_and_merge)
    assert rows_of(opened()) == list(range(12))


@pytest.mark.parametrize("fatal", ["write_shard", "ShardFolder.remove"])
def test_a_merge_that_is_killed_loses_nothing(store, opened, root, shared, monkeypatch, fatal):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"regraft.store.shard_folder.{fatal}", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(root, shared)
    assert rows_of(opened()) == list(range(12))


# leases


@pytest.mark.parametrize("command", ["gc", "compact"])
def test_nothing_is_collected_or_merged_while_the_store_is_in_use(store, root, shared, command):
    use(store, root, shared, [0])
    before = shards(store)
    with (
        store_in_use(root, shared),
        pytest.raises(Busy, match=rf"in use by process {os.getpid()} on \S+, since 20\d\d-\d\d-\d\d \d\d:\d\d UTC"),
    ):
        collect(root, shared, {VERSION: "here"}, really=True) if command == "gc" else compact(root, shared)
    assert shards(store) == before
    compact(root, shared)  # the lease ended with the block


def test_gc_keeps_what_a_stage_has_just_recorded(store, opened, root, shared):
    use(store, root, shared, [0], version=OTHER)  # DVC has not written dvc.lock yet
    collect(root, shared, {}, really=True)
    assert rows_of(opened()) == [0]


# use records


# verify and list


def test_verify_finds_damage_in_rows_that_are_there_twice(root):
    for _ in range(2):
        store = open_namespace(root, "features", {}, shape=(4,), dtype="float32")
        store.append(KEYS[:3], VALUES[:3], seconds=0)
        store.flush()
    for path in list(store.folder.glob("*.arrow")):
        path.write_bytes(path.read_bytes().replace(VALUES[1].tobytes(), b"?" * 16))
    with pytest.raises(RegraftError, match=r"2 shard\(s\) were damaged"):
        overview.verify(root, None)
    assert len(list(store.folder.glob("*.damaged"))) == 2


def test_verify_finds_that_recorded_rows_are_missing(store, root, shared):
    record_use(root, VERSION, [store], [KEYS[0], key_of("ff" * 32)], shared=shared)
    with pytest.raises(RegraftError, match=r"0 shard\(s\) were damaged.*1 row\(s\) .* are missing"):
        overview.verify(root, shared)


@local
def test_a_damaged_description_is_an_error_that_names_it(store, root):
    description = store.folder / "namespace.json"
    description.write_text(description.read_text().replace("float32", "gloat32"))
    with pytest.raises(RegraftError, match=rf"{description} is damaged or missing\. The next retraining"):
        overview.verify(root, None)


@local
def test_who_may_only_read_a_store_needs_no_record(store, root, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # modes would not hinder root
    record_use(root, VERSION, [store], KEYS, shared=None)
    assert records(root, None) == []
