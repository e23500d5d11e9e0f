"""Two machines with histories of their own share a store: gc of one leaves to the other what that has recorded."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.store.leases import store_in_use
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.remote import Remote
from regraft.store.upkeep import collect, compact
from regraft.store.uses import record_use, records
from tests.support.store import KEYS, fill

OF_A, OF_B, BOTH = "a" * 32, "b" * 32, "c" * 32
DAY = 86_400


@pytest.fixture
def shared(tmp_path: Path) -> str:
    return f"file://{tmp_path}/shared"


@pytest.fixture
def machine(tmp_path: Path, shared: str) -> Callable[..., Namespace]:
    """A function that does a run on a machine: rows, and a record of them under a version's name."""

    def run(name: str, version: str, *rows: int, url: str | None = shared) -> Namespace:
        with store_in_use(tmp_path / name, url):
            store = open_namespace(tmp_path / name, "features", {}, shape=(4,), dtype="float32", shared=url)
            fill(store, *rows)
            record_use(tmp_path / name, version, [store], [KEYS[row] for row in rows], shared=url)
        return store

    return run


def gc(tmp_path: Path, name: str, shared: str | None, *versions: str, stale_days: float = 30) -> None:
    collect(tmp_path / name, shared, dict.fromkeys(versions, "git 1234567"), stale_days=stale_days, really=True)


def age(tmp_path: Path, days: float, pattern: str) -> None:
    """Make files of the shared root so many days old by its clock."""
    for path in (tmp_path / "shared" / "uses").glob(pattern):
        os.utime(path, (0, path.stat().st_mtime - days * DAY))


def settle(tmp_path: Path) -> None:
    """Make all records two hours old, here and in the shared root."""
    for path in tmp_path.glob("*/uses/*.arrow"):
        os.utime(path, (0, path.stat().st_mtime - 2 * 3600))


def rows_in(tmp_path: Path, shared: str | None) -> list[int]:
    """The rows that a new machine finds."""
    store = open_namespace(tmp_path / "new", "features", {}, shape=(4,), dtype="float32", shared=shared)
    return [row for row, key in enumerate(KEYS) if not store.missing([key])]


def test_gc_keeps_what_another_machine_recorded_long_ago_as_long_as_that_is_at_work(machine, tmp_path, shared, capsys):
    machine("a", OF_A, 0, 1)
    machine("b", OF_B, 2, 3)
    age(tmp_path, 400, "*.arrow")
    gc(tmp_path, "a", shared, OF_A)
    assert rows_in(tmp_path, shared) == [0, 1, 2, 3]
    assert "1 record(s) of other machines are kept, with the rows that they name" in capsys.readouterr().out


def test_what_a_machine_recorded_goes_once_it_is_gone(machine, tmp_path, shared):
    machine("a", OF_A, 0, 1)
    machine("b", OF_B, 2, 3)
    age(tmp_path, 31, "*")
    gc(tmp_path, "a", shared, OF_A)
    assert rows_in(tmp_path, shared) == [0, 1]
    assert {record.version for record in records(tmp_path / "a", Remote(shared))} == {OF_A}
    assert len(list((tmp_path / "shared" / "uses").glob("*.owner"))) == 1


def test_a_machine_that_only_uses_the_store_is_not_gone(machine, tmp_path, shared):
    machine("a", OF_A, 0)
    machine("b", OF_B, 2)
    age(tmp_path, 31, "*")
    with store_in_use(tmp_path / "b", shared):
        pass
    gc(tmp_path, "a", shared, OF_A)
    assert rows_in(tmp_path, shared) == [0, 2]


def test_an_own_record_goes_when_the_own_history_does_not_want_it(machine, tmp_path, shared):
    machine("a", OF_A, 0)
    machine("a", BOTH, 1)
    settle(tmp_path)
    gc(tmp_path, "a", shared, BOTH)
    assert rows_in(tmp_path, shared) == [1]


def test_of_one_version_on_two_machines_each_has_its_own_record(machine, tmp_path, shared):
    machine("a", BOTH, 0)
    machine("b", BOTH, 0)
    machine("b", OF_B, 1)
    settle(tmp_path)
    gc(tmp_path, "b", shared, OF_B)
    assert rows_in(tmp_path, shared) == [0, 1]


def test_a_copy_of_a_machines_folder_is_another_owner(machine, tmp_path, shared):
    machine("a", OF_A, 0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    machine("b", OF_B, 1)
    settle(tmp_path)
    gc(tmp_path, "a", shared, OF_A)
    assert rows_in(tmp_path, shared) == [0, 1]


def test_what_was_recorded_before_there_was_a_shared_store_counts_there_too(machine, tmp_path, shared):
    machine("a", OF_A, 0, url=None)
    machine("a", BOTH, 1)
    machine("b", OF_B, 2)
    gc(tmp_path, "b", shared, OF_B)
    assert rows_in(tmp_path, shared) == [0, 1, 2]


def test_what_a_model_said_of_photos_on_one_machine_stays_as_long_as_anybody_adds_to_it(tmp_path, shared, machine):
    machine("a", OF_A, 0)
    facts, like = {"model": "0" * 64}, {"shape": (4,), "dtype": "float32", "shared": shared}
    said = open_namespace(tmp_path / "a", "probabilities", facts, **like)
    fill(said, 0)
    compact(tmp_path / "a", shared)
    gc(tmp_path, "b", shared, OF_B)
    assert open_namespace(tmp_path / "b", "probabilities", facts, **like).missing(KEYS[:1]) == []
    description = tmp_path / "shared" / said.folder.name / "namespace.json"
    os.utime(description, (0, description.stat().st_mtime - 31 * DAY))
    gc(tmp_path, "b", shared, OF_B)
    assert said.folder.name not in Remote(shared).folders()
