from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.core.errors import RegraftError
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.remote import Remote
from regraft.store.shards import key_of
from regraft.store.upkeep import collect
from regraft.store.uses import record_use
from tests.support.store import KEYS, VALUES, fill, shards


@pytest.fixture(params=["s3", "file", "memory"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a shared root that is empty."""
    if request.param == "s3":
        request.getfixturevalue("s3_server")
    places = {
        "file": f"file://{tmp_path}/shared",
        "s3": f"s3://bucket/{tmp_path.name}",
        "memory": f"memory://{tmp_path}",
    }
    return places[request.param]


@pytest.fixture
def machine(tmp_path: Path, shared: str) -> Callable[..., Namespace]:
    """A function that opens the shared store as a machine of that name does, with a local folder of its own."""
    return lambda name, url=shared: open_namespace(
        tmp_path / name, "features", {}, shape=(4,), dtype="float32", shared=url
    )


def files(shared: str, store: Namespace) -> dict[str, int]:
    return Remote(shared).sizes(store.folder.name)


def damage(contents: bytes) -> bytes:
    position = contents.index(VALUES[1].tobytes())
    return contents[:position] + bytes([contents[position] ^ 0xFF]) + contents[position + 1 :]


def damage_shared(shared: str, store: Namespace) -> str:
    """Damage a value in the only shared shard and return the shard's name."""
    (name,) = [name for name in files(shared, store) if name.endswith(".arrow")]
    remote = Remote(shared)
    remote.write(f"{store.folder.name}/{name}", damage(remote.read(f"{store.folder.name}/{name}") or b""))
    return name


def test_rows_of_one_machine_are_there_for_another(machine):
    fill(machine("a"), 0, 1, 2)
    other = machine("b")
    assert (other.missing(KEYS[:4]), other.seconds_for(KEYS)) == ([KEYS[3]], 3)
    assert np.array_equal(other.read(KEYS[:3]), VALUES[:3])


def test_rows_that_a_machine_has_are_not_fetched_again(machine, monkeypatch):
    fill(machine("a"), 0, 1, 2)
    machine("b")
    assert machine("b").missing(KEYS[:3]) == []
    for way in ("fetch", "read_range"):
        monkeypatch.setattr(Remote, way, lambda *_: pytest.fail("fetched again"))
    again = machine("b")
    assert again.missing(KEYS[:3]) == []
    assert np.array_equal(again.read(KEYS[:3]), VALUES[:3])


def test_what_is_computed_without_the_shared_store_is_sent_when_it_is_named(machine, shared):
    fill(machine("a", None), 0, 1)
    machine("a")
    assert machine("b").missing(KEYS[:2]) == []


def test_rows_that_a_killed_process_had_not_sent_are_sent_by_the_next_one(machine, monkeypatch, shared):
    store = machine("a")
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "send", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fill(store, 0, 1)
    assert not [name for name in files(shared, store) if name.endswith(".arrow")]
    machine("a")
    assert machine("b").missing(KEYS[:2]) == []


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_shards_that_the_shared_store_lost_are_dropped(machine, shared):
    store = machine("a")
    fill(store, 0, 1)
    for name in files(shared, store):
        Remote(shared).remove(f"{store.folder.name}/{name}")
    assert (machine("a").missing(KEYS[:2]), shards(store)) == (KEYS[:2], [])


def test_a_damaged_copy_of_what_the_shared_store_has_costs_nothing(machine):
    copy = machine("a")
    fill(copy, 0, 1, 2)
    (path,) = shards(copy)
    path.write_bytes(damage(path.read_bytes()))
    again = machine("a")
    assert again.missing(KEYS[:3]) == []
    assert (again.read(KEYS[:3]) == VALUES[:3]).all()


def test_opening_fetches_keys_and_no_value(machine, monkeypatch):
    wide = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    keys = [key_of(f"{number:064x}") for number in range(500)]
    store = machine("a")
    store.append(keys, wide, seconds=1)
    store.flush()
    read, asked = Remote.read_range, []
    monkeypatch.setattr(Remote, "read_range", lambda self, *what: asked.append(what) or read(self, *what))
    other = machine("b")
    start, stop = map(int, store.shards[0].name.split("-")[1:3])
    assert sorted(what[1:] for what in asked) == [(0, start), (stop, store.shards[0].size)]
    assert other.missing([*keys, KEYS[0]], verify=False) == KEYS[:1]
    assert len(asked) == 2


def test_a_value_that_is_damaged_in_the_shared_store_is_never_read(machine, shared):
    store = machine("a")
    fill(store, 0, 1, 2)
    reader = machine("b")
    damage_shared(shared, store)
    with pytest.raises(RegraftError, match="was damaged or removed while it was in use"):
        reader.read(KEYS[:3])
    assert reader.missing(KEYS[:3]) == KEYS[:3]


def test_damaged_keys_are_fetched_again(machine):
    fill(machine("a"), 0, 1, 2)
    (path,) = machine("b").folder.glob("*.keys")
    path.write_bytes(path.read_bytes()[:50] + b"?" + path.read_bytes()[51:])
    assert machine("b").missing(KEYS[:3]) == []


def test_gc_removes_copies_that_nothing_needs_and_only_them(machine, shared, tmp_path):
    fill(machine("a"), 0, 1, 2)
    fill(machine("a"), 3)
    other = machine("b")
    other.missing(KEYS[:1])
    other.missing(KEYS[3:4])
    record_use(tmp_path / "b", "a" * 32, [other], KEYS[:3], shared=shared)
    record_use(tmp_path / "a", "b" * 32, [other], KEYS[:4], shared=shared)
    assert len(list(other.folder.glob("*.kept.arrow"))) == 2
    collect(tmp_path / "b", shared, {"a" * 32: "here"}, stale_days=0, really=True)
    (left,) = other.folder.glob("*.kept.arrow")
    assert machine("b").missing(KEYS[:4]) == [KEYS[3]]
    assert left.exists()


def test_a_shard_that_is_damaged_in_the_shared_store_is_set_aside_there(machine, shared, capsys):
    store = machine("a")
    fill(store, 0, 1, 2)
    name = damage_shared(shared, store)
    reader = machine("b")
    assert reader.missing(KEYS[:3]) == KEYS[:3]
    aside = name.replace(".arrow", ".damaged")
    assert {name, aside} & set(files(shared, store)) == {aside}
    assert f"{Remote(shared).shown}: {store.folder.name}/{name} is damaged" in capsys.readouterr().err


def test_a_damaged_shard_is_not_sent(machine, shared):
    store = machine("a", None)
    fill(store, 0, 1, 2)
    (path,) = shards(store)
    path.write_bytes(damage(path.read_bytes()))
    assert machine("a").missing(KEYS[:3]) == KEYS[:3]
    assert not [name for name in files(shared, store) if name.endswith(".arrow")]


@pytest.mark.parametrize("shared", ["s3"], indirect=True)
def test_a_bucket_that_does_not_exist_is_an_error_and_costs_no_rows(machine, tmp_path):
    store = machine("a", None)
    fill(store, 0, 1)
    with pytest.raises(RegraftError, match=r"s3://no-such-bucket cannot be reached: .*NoSuchBucket"):
        machine("a", "s3://no-such-bucket/x")
    assert machine("a", None).missing(KEYS[:2]) == []
