"""A team moves production to an address: all of it arrives, and nothing there is overwritten."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.core.remote import Remote
from regraft.production import exclusive
from regraft.production.copying import Copied, copy_production
from regraft.production.registry import Candidates, Production
from regraft.production.remote_registry import looks_of
from regraft.production.run_history import Row, add_rows, read_rows
from tests.support.at_address import found_with, pointer_at, worker
from tests.support.production import data_of, promote, roll_back, write_candidate

Copy = Callable[[str], Copied]


@pytest.fixture(autouse=True)
def _look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers in one process would be one command otherwise."""
    monkeypatch.setattr(exclusive, "_LOOK_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """models/production after three promotions and a rollback, with verdicts and a candidate beside it."""
    folder = tmp_path / "models" / "production"
    for contents in ("one", "two", "three"):
        promote(folder, contents)
    roll_back(folder)
    (folder / "verdicts.jsonl").write_text('{"at": "1"}\n{"at": "2"}\n')
    add_rows(folder, [Row(run="a", started=datetime.now(UTC), name="Completed")])
    path = write_candidate(folder, "no")
    Candidates(folder.parent / "candidates").add(path, sha256_of(path), "Refused", reference=data_of("no"), keep=2)
    return folder


@pytest.fixture
def copy(folder: Path) -> Copy:
    """A function that copies it."""
    return lambda address: copy_production(folder, folder.parent / "candidates", address)


@pytest.mark.parametrize("kind", ["s3", "file", "memory"])
def test_a_worker_finds_at_the_address_all_that_was_in_the_folder(kind, copy, folder, tmp_path, request):
    if kind == "s3":
        request.getfixturevalue("s3_server")
    root = {"s3": f"bucket/{tmp_path.name}", "file": f"{tmp_path}/there", "memory": f"{tmp_path}"}[kind]
    address = f"{kind}://{root}/moved"
    before = looks_of(folder)
    copied = copy(address)
    assert copied.model == sha256_of(folder / "model.onnx")
    assert looks_of(folder) == before

    there = worker(tmp_path / "fresh", address)
    production = Production(there)
    assert production.model.read_text() == "two"
    assert production.history() == Production(folder).history()
    assert "by a test" in (production.rolled_back(sha256_of(folder.parent / "three.onnx")) or "")
    assert (there / "verdicts.jsonl").read_text() == (folder / "verdicts.jsonl").read_text()
    assert [row.run for row in read_rows(there)] == ["a"]
    assert Candidates(there / "candidates").find(sha256_of(folder.parent / "no.onnx")[:8]).read_text() == "no"
    production.rollback()
    assert production.model.read_text() == "one"
    assert Remote(address).get("model.onnx") == b"two"  # the copy for services, until it is published again


def test_production_at_one_address_is_copied_to_another_with_models_that_were_never_fetched(tmp_path):
    first, second = f"memory://{tmp_path}/first", f"memory://{tmp_path}/second"
    found_with(worker(tmp_path / "a", first), "one", "two")
    before, there = pointer_at(first), worker(tmp_path / "b", first)
    copy_production(there, there / "candidates", second)
    assert pointer_at(first) == before
    production = Production(worker(tmp_path / "c", second))
    production.rollback()
    assert production.model.read_text() == "one"


def test_nothing_at_an_address_is_overwritten_and_no_address_that_could_hold_a_secret_is_taken(copy, folder, tmp_path):
    address = f"memory://{tmp_path}/there"
    found_with(worker(tmp_path / "a", address), "theirs")
    before = pointer_at(address)
    with pytest.raises(RegraftError, match="there is production at memory:// already, and it stays as it is"):
        copy(address)
    assert pointer_at(address) == before
    for wrong in ("models/other", "s3://user:secret@host/x", "", f"s3://bucket/{'x' * 300}"):
        with pytest.raises(RegraftError, match="address") as stopped:
            copy(wrong)
        assert "secret@" not in str(stopped.value)
    with pytest.raises(RegraftError, match="another address was expected"):
        copy_production(worker(tmp_path / "a", address), folder, address)


def test_a_folder_without_a_sound_model_is_not_copied(copy, folder, tmp_path):
    (folder / "model.onnx").write_text("damaged")
    with pytest.raises(RegraftError, match=r"no sound model in production, so nothing was copied\. .*is damaged"):
        copy(f"memory://{tmp_path}/there")
    assert Remote(f"memory://{tmp_path}/there").get("production.json") is None


def test_a_copy_that_is_killed_leaves_nothing_that_counts_and_the_next_one_succeeds(copy, tmp_path, monkeypatch):
    address, put = f"memory://{tmp_path}/there", Remote.put
    sent: list[Any] = []

    def killed(remote: Remote, *arguments: Any) -> None:
        sent.append(arguments)
        if len(sent) == 4:
            raise KeyboardInterrupt
        put(remote, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            copy(address)
    assert Remote(address).get("production.json") is None
    copy(address)
    assert pointer_at(address).serial == 1
