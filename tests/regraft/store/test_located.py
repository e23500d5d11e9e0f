"""Rows that were found once and are read many times, as training does where features.arrow names rows of the store."""

from pathlib import Path

import numpy as np
import pytest

from regraft.core.errors import RegraftError
from regraft.store import located
from regraft.store.located import LocatedRows, locate_rows
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.remote import Remote
from regraft.store.shards import as_array
from regraft.store.upkeep import compact
from tests.support.store import KEYS, VALUES, fill

EVERY = np.arange(6)


@pytest.fixture
def store(tmp_path: Path) -> Namespace:
    """A store of three shards with two rows each."""
    store = open_namespace(tmp_path / "store", "features", {}, shape=(4,), dtype="float32")
    for first in (0, 2, 4):
        fill(store, first, first + 1)
    return store


def rows_of(store: Namespace) -> LocatedRows:
    """All rows, as another process finds them."""
    return locate_rows(store.folder, store.remote, as_array(KEYS), store.checksums(KEYS), advice="Compute them.")


def damage(path: Path, value: np.ndarray) -> None:
    contents = path.read_bytes()
    position = contents.index(value.tobytes())
    path.write_bytes(contents[:position] + bytes([contents[position] ^ 1]) + contents[position + 1 :])


@pytest.mark.parametrize("most", [1, 256])
def test_rows_come_in_the_order_asked_for_however_few_files_may_be_open(store, monkeypatch, most):
    monkeypatch.setattr(located, "_OPEN_FILES", most)
    rows = rows_of(store)
    for positions in ([4, 0, 2, 0], [0, 1, 2, 3, 4, 5], [5, 1], []):
        chosen = np.array(positions, int)
        assert np.array_equal(rows.read(chosen), VALUES[chosen])


def test_rows_that_are_missing_or_others_are_counted_and_it_is_said_what_to_do(store, tmp_path):
    checksums = store.checksums(KEYS)
    named = checksums ^ (EVERY % 3 == 1)
    with pytest.raises(
        RegraftError, match=rf"2 of 6 rows of the store are others now in {store.folder}\. Compute them"
    ):
        LocatedRows(store, as_array(KEYS), named, advice="Compute them.")
    some = LocatedRows(store, as_array(KEYS), named, advice="", only_some=True)
    assert np.array_equal(some.read(EVERY[2:4]), VALUES[2:4])
    with pytest.raises(RegraftError, match="1 of 6 rows of the store are others now"):
        some.read(EVERY[:3])
    with pytest.raises(RegraftError, match=r"6 of 6 rows of the store are missing"):
        locate_rows(tmp_path / "clone" / store.folder.name, None, as_array(KEYS), checksums, advice="")


def test_where_some_rows_are_missing_others_or_damaged_the_rest_can_be_read(store):
    named = store.checksums(KEYS) ^ (EVERY == 1)
    damage(store.shards[-1].path, VALUES[5])
    present = np.array([0, 2, 3])  # a damaged row takes its shard with it
    values, which = LocatedRows(store, as_array(KEYS), named, advice="", only_some=True).read_present(EVERY)
    assert (values.tolist(), which.tolist()) == (VALUES[present].tolist(), present.tolist())


def test_a_row_that_is_damaged_is_never_returned(store):
    rows = rows_of(store)
    assert np.array_equal(rows.read(EVERY[:2]), VALUES[:2])
    damage(store.shards[1].path, VALUES[2])
    with pytest.raises(RegraftError, match="of 6 rows of the store are missing"):
        rows.read(EVERY)
    assert len(list(store.folder.glob("*.damaged"))) == 1


def test_the_row_that_was_named_is_read_although_another_machine_computed_it_with_other_bits(store):
    rows, before = rows_of(store), store.checksums(KEYS)
    while (store.checksums(KEYS) == before).any():  # until others count
        store.append(
            KEYS, VALUES + np.random.default_rng(len(store.shards)).uniform(size=(6, 4)).astype("f4"), seconds=6
        )
        store.flush()
    assert np.array_equal(LocatedRows(store, as_array(KEYS), before, advice="").read(EVERY), VALUES)
    assert np.array_equal(rows.read(EVERY), VALUES)


def test_rows_are_found_again_where_another_shard_has_them_now(store, tmp_path):
    rows = rows_of(store)
    compact(tmp_path / "store", None)
    assert np.array_equal(rows.read(EVERY), VALUES)


@pytest.fixture
def other(tmp_path: Path) -> Namespace:
    """The namespace on a machine that has none of the rows, but shares a store that has all of them."""
    first, other = (
        open_namespace(tmp_path / name, "features", {}, shape=(4,), dtype="float32", shared=f"file://{tmp_path}/shared")
        for name in ("first", "other")
    )
    fill(first, *EVERY.tolist())
    other.refresh()
    return other


def test_rows_of_the_shared_store_are_fetched_once(other, monkeypatch):
    rows = rows_of(other)
    rows.fetch()
    monkeypatch.setattr(Remote, "read_range", lambda *_: pytest.fail("fetched again"))
    assert np.array_equal(rows.read(EVERY[::-1]), VALUES[EVERY[::-1]])
