"""The shared root is recognised by its marker: whatever happens to it, no row that is only here is lost."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from regraft.core.errors import RegraftError
from regraft.store import overview
from regraft.store.joining import MARKER, open_shared
from regraft.store.leases import store_in_use
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.remote import Remote
from regraft.store.upkeep import collect, compact
from regraft.store.uses import record_use
from tests.support.store import KEYS, fill, shards

VERSION = "a" * 32
Machine = Callable[..., Namespace]


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A folder that is mounted on every machine."""
    return tmp_path / "mnt"


@pytest.fixture
def machine(tmp_path: Path, share: Path) -> Machine:
    return lambda name="a", url=f"{share}/store": open_namespace(
        tmp_path / name, "features", {}, shape=(4,), dtype="float32", shared=url
    )


def unmount(share: Path) -> None:
    share.rename(share.with_name("server"))
    share.mkdir()


def mount(share: Path) -> None:
    for path in sorted(share.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    share.rmdir()
    share.with_name("server").rename(share)


LOOKS = {
    "a run": lambda root, url: open_namespace(root, "features", {}, shape=(4,), dtype="float32", shared=url),
    "a stage": lambda root, url: store_in_use(root, url).__enter__(),
    "gc": lambda root, url: collect(root, url, {VERSION: "here"}, really=True),
    "compact": compact,
    "verify": overview.verify,
    "a record": lambda root, url: record_use(root, VERSION, [], KEYS, shared=url),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("loss", ["unmounted", "emptied", "gone"])
def test_a_known_share_that_is_not_there_stops_everything_and_nothing_is_lost(machine, share, tmp_path, look, loss):
    store = machine()
    fill(store, 0, 1)
    record_use(tmp_path / "a", VERSION, [store], KEYS[:2], shared=f"{share}/store")
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    unmount(share)
    if loss == "emptied":
        (share / "store").mkdir()
    if loss == "gone":
        share.rmdir()
    with pytest.raises(RegraftError, match=rf"{share}/store is empty: expected the marker .*Nothing is removed here"):
        LOOKS[look](tmp_path / "a", f"{share}/store")
    assert {path: path.read_bytes() for path in before} == before
    if share.exists():
        assert list(share.rglob("*.arrow")) == []
        mount(share)
    else:
        share.with_name("server").rename(share)
    assert machine().missing(KEYS[:2]) == []
    assert machine("b").missing(KEYS[:2]) == []


def test_a_share_that_is_unmounted_during_a_run_costs_no_rows(machine, share):
    store = machine()
    fill(store, 0)
    unmount(share)
    with pytest.raises(RegraftError, match="is empty: expected the marker"):
        fill(store, 1)  # it went to the empty folder, and so does not count as sent
    with pytest.raises(RegraftError, match="is empty: expected the marker"):
        store.refresh()
    mount(share)
    assert machine().missing(KEYS[:2]) == []
    assert machine("b").missing(KEYS[:2]) == []


def test_a_share_that_was_emptied_on_purpose_is_filled_again_after_a_person_said_so(machine, share, tmp_path, capsys):
    fill(machine(), 0, 1)
    unmount(share)
    (tmp_path / "a" / "regraft-shared.json").unlink()  # as the message says
    assert machine().missing(KEYS[:2]) == []
    assert "all 1 shards here are compared with it, and sent where it has none" in capsys.readouterr().err
    assert machine("b").missing(KEYS[:2]) == []


@pytest.mark.parametrize("contents", [b"", b'{"id": 1, "address": 2}'])
def test_a_damaged_note_is_no_reason_to_trust_an_empty_share(machine, share, tmp_path, contents):
    fill(machine(), 0, 1)
    (tmp_path / "a" / "regraft-shared.json").write_bytes(contents)
    unmount(share)
    with pytest.raises(RegraftError, match="is empty: expected the marker"):
        machine()
    mount(share)
    assert machine().missing(KEYS[:2]) == []


@pytest.mark.parametrize("kind", ["file", "memory", "s3"])
def test_of_two_machines_that_make_a_store_at_once_one_wins_and_both_accept(kind, tmp_path, request, capsys):
    if kind == "s3":
        request.getfixturevalue("s3_server")
    for attempt in range(10):
        where = {"file": f"file://{tmp_path}/s{attempt}", "memory": f"memory://{tmp_path}/{attempt}"}
        address = where.get(kind, f"s3://bucket/{tmp_path.name}{attempt}")
        roots = [tmp_path / f"{name}{attempt}" for name in "abcd"]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(partial(open_shared, address=address, may_create=True), roots))
        notes = {(root / "regraft-shared.json").read_text() for root in roots}
        assert len(notes) == 1
        assert json.loads(Remote(address).read(MARKER) or b"")["id"] == json.loads(notes.pop())["id"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [compact, overview.verify, LOOKS["gc"]])
def test_who_only_looks_after_a_store_makes_none(machine, tmp_path, command):
    fill(machine("a", None), 0)
    with pytest.raises(RegraftError, match=r"There is no shared store at .*/typo: expected the marker"):
        command(tmp_path / "a", f"{tmp_path}/typo")
    assert not (tmp_path / "typo").exists()
    assert len(shards(machine("a", None))) == 1
