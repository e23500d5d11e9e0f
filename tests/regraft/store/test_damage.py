"""Damage to any file of a store: the same values, or computed again, or an error that says what to do."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.core.errors import RegraftError
from regraft.store import joining, overview
from regraft.store.leases import store_in_use
from regraft.store.namespace import open_namespace
from regraft.store.upkeep import collect, compact
from regraft.store.uses import read_use, record_use, records
from tests.support.store import KEYS, VALUES, fill

VERSION = "a" * 32
KINDS = {
    "shard": "features-*/*.arrow",
    "description": "features-*/namespace.json",
    "record": "uses/*.arrow",
    "owner": "uses/*.owner",
    "lease": "leases/*.json",
    "note": "regraft-shared.json",
    "marker": "regraft-store.json",
    "number of the owner": "regraft-owner",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A function that makes two machines and the store that they share, with a lease that somebody left.

    They are always in the same place, since a machine that finds its store elsewhere trusts nothing that it knew.
    """
    base, kept = tmp_path_factory.mktemp("damage") / "now", tmp_path_factory.mktemp("sound") / "kept"
    for name, rows in (("a", (0, 1)), ("b", (2, 3)), ("a", ())):
        root, shared = base / name, f"{base}/shared"
        with store_in_use(root, shared) as use:
            store = open_namespace(root, "features", {}, shape=(4,), dtype="float32", shared=shared)
            fill(store, *rows)
            record_use(root, VERSION, [store], [KEYS[row] for row in rows], shared=shared)
            left = use.root / "leases" / use.lease
            contents = left.read_bytes()
        for place in (left, base / "shared" / "leases" / left.name):
            place.write_bytes(contents)
    shutil.copytree(base, kept)

    def make() -> Path:
        shutil.rmtree(base)
        return shutil.copytree(kept, base)

    return make


def work(base: Path, *, gc: bool) -> None:
    """Do all that is done with a store, as a run does it: a row that is missing is computed."""
    root, shared = base / "a", f"{base}/shared"
    with suppress(RegraftError), store_in_use(root, shared):
        store = open_namespace(root, "features", {}, shape=(4,), dtype="float32", shared=shared)
        if missing := store.missing(KEYS[:4]):
            fill(store, *[KEYS.index(key) for key in missing])
        assert np.array_equal(store.read(KEYS[:4]), VALUES[:4])
        assert 0 <= store.seconds_for(KEYS) < 10
        record_use(root, VERSION, [store], KEYS[:4], shared=shared)
    for look in (overview.list_store, overview.verify, compact):
        with suppress(RegraftError):
            look(root, shared)
    with suppress(RegraftError):
        collect(root, shared, {VERSION: "here"}, really=gc)
    for record in records(root, None):
        with suppress(RegraftError):
            assert set(read_use(root, None, record).keys.tobytes()) <= set(b"".join(KEYS))
    # Whatever happened, a run without the shared store gives the right values.
    store = open_namespace(root, "features", {}, shape=(4,), dtype="float32")
    if missing := store.missing(KEYS[:4]):
        fill(store, *[KEYS.index(key) for key in missing])
    assert np.array_equal(store.read(KEYS[:4]), VALUES[:4])


@st.composite
def _damages(draw: st.DrawFn) -> tuple[str, float, int]:
    return draw(st.sampled_from(["flip", "cut", "zeros", "other"])), draw(st.floats(0, 1)), draw(st.integers(0, 7))


NONSENSE = [
    b"",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"null",
    b"\0" * 4096,
    b"\xff" * 100,
    b"1" * 5000,
    b'{"id": "\\ud800"}',
]


def damaged(contents: bytes, kind: str, place: float, number: int) -> bytes:
    position = min(int(place * len(contents)), len(contents) - 1)
    if kind == "flip":
        return contents[:position] + bytes([contents[position] ^ (1 << number)]) + contents[position + 1 :]
    if kind == "cut":
        return contents[:position]
    if kind == "zeros":
        return contents[:position] + bytes(len(contents) - position)
    return NONSENSE[number]


@pytest.mark.parametrize("where", ["a", "shared"])
@pytest.mark.parametrize("what", KINDS)
@settings(max_examples=12, deadline=None)
@given(damage=_damages(), which=st.integers(0, 3), gc=st.booleans())
def test_damage_anywhere_gives_the_same_values_or_an_error_that_says_what_to_do(
    sound: Callable[[], Path], where: str, what: str, damage: tuple[str, float, int], which: int, gc: bool
) -> None:
    base = sound()
    if paths := sorted((base / where).glob(KINDS[what])):
        path = paths[which % len(paths)]
        path.write_bytes(damaged(path.read_bytes(), *damage))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "_PAUSE", 0)
        work(base, gc=gc)
