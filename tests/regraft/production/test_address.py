"""Production at an address: workers with empty disks find it, change it one after the other, and lose nothing."""

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.httpsession import AIOHTTPSession
from s3fs import S3FileSystem

from regraft.core.errors import InputsChanged, Overtaken, RegraftError
from regraft.core.files import sha256_of
from regraft.core.remote import Entry, Remote
from regraft.production import exclusive as access
from regraft.production import remote_registry
from regraft.production.exclusive import exclusive, found, publish
from regraft.production.records import Records
from regraft.production.registry import Candidates, Grounds, Production
from regraft.production.remote_registry import read_pointer
from regraft.production.run_history import Row, add_rows, read_rows
from tests.support.at_address import found_with, pointer_at, promote_by_hand, worker
from tests.support.production import write_candidate


@pytest.fixture(autouse=True)
def _look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers in one process would be one command otherwise."""
    monkeypatch.setattr(access, "_LOOK_SECONDS", 0.0)


everywhere = pytest.mark.parametrize("address", ["s3", "file", "memory"], indirect=True)


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address where nothing is."""
    kind = getattr(request, "param", "memory")
    if kind == "s3":
        request.getfixturevalue("s3_server")
    return {
        "s3": f"s3://bucket/{tmp_path.name}/private",
        "file": f"file://{tmp_path}/shared",
        "memory": f"memory://{tmp_path}/private",
    }[kind]


@pytest.fixture
def s3(s3_server: None, tmp_path: Path) -> str:
    """An address of S3 where nothing is."""
    return f"s3://bucket/{tmp_path.name}/private"


@pytest.fixture
def at(tmp_path: Path, address: str) -> Callable[[str], Path]:
    """A function that returns the folder of the worker of that name."""
    return lambda name: worker(tmp_path / name, address)


def text_of(folder: Path) -> str:
    """The model in production, as a worker finds it."""
    production = Production(folder)
    standing = production.standing()
    assert standing.problem is None
    assert standing.digest == production.history()[-1].sha256 == sha256_of(production.model)
    return production.model.read_text()


@everywhere
def test_a_fresh_worker_finds_the_model_in_production_its_story_and_what_it_was_trained_on(at):
    found_with(at("a"), "one", "two")
    assert text_of(at("b")) == "two"
    assert [change.words for change in Records(at("b")).history()] == ["because of one", "because of two"]
    reference, _ = Records(at("b")).find_reference()
    assert reference is not None
    assert reference.rows.label[0] == "two"


def test_former_models_are_fetched_only_when_they_are_asked_for(at):
    found_with(at("a"), "one", "two")
    records = Records(at("b"))
    (first,) = [change.sha256 for change in records.history()][:1]
    assert records.version_of(first).stat().st_size == 0
    assert records.predecessor() == first
    assert records.version_of(first).read_text() == "one"


def test_another_worker_rolls_back_and_the_first_one_knows(at):
    found_with(at("a"), "one", "two")
    Production(at("b")).rollback(by=" by somebody")
    assert text_of(at("a")) == "one"
    left = sha256_of(write_candidate(at("a"), "two"))
    assert "by somebody" in (Records(at("c")).rolled_back(left) or "")


@everywhere
def test_of_two_workers_that_compared_with_the_same_model_one_promotes_and_the_other_is_told_why_not(at, tmp_path):
    found_with(at("a"), "one")
    champion = Production(at("a")).digest
    path = write_candidate(tmp_path / "models" / "production", "late")
    late = Production(at("b"))
    promote_by_hand(at("a"), "fast")
    with pytest.raises(InputsChanged, match="production changed while the new model was compared with it"):
        late.promote(path, "late", keep=2, grounds=Grounds(sha256_of(path), champion))
    assert text_of(at("b")) == text_of(at("a")) == "fast"


@everywhere
def test_a_change_that_another_worker_overtook_leaves_what_that_one_wrote(at):
    found_with(at("a"), "one")

    def change() -> None:
        with exclusive(at("b"), "something", patience=1):
            (at("b") / "log.jsonl").write_text("mine")
            promote_by_hand(at("a"), "two")

    with pytest.raises(Overtaken, match="at the same moment, and was first"):
        change()
    assert text_of(at("b")) == text_of(at("a")) == "two"


def test_rows_of_workers_that_end_at_once_are_all_in_the_history(at, monkeypatch):
    from datetime import UTC, datetime

    found_with(at("a"))
    meanwhile = [Row(run="of a", started=datetime.now(UTC), name="Completed")]
    write = Remote.put_if

    def overtaken(remote: Remote, *arguments: Any) -> bool:
        if meanwhile:
            add_rows(at("a"), [meanwhile.pop()])
        return write(remote, *arguments)

    monkeypatch.setattr(Remote, "put_if", overtaken)
    add_rows(at("b"), [Row(run="of b", started=datetime.now(UTC), name="Completed")])
    assert {row.run for row in read_rows(at("c"))} == {"of a", "of b"}


def test_a_candidate_of_one_worker_is_promoted_by_another(at, tmp_path):
    found_with(at("a"), "one")
    path = write_candidate(tmp_path / "models" / "production", "two")
    with exclusive(at("a"), "keeping a candidate", patience=1):
        Candidates(at("a") / "candidates").add(path, sha256_of(path), "no", reference=None, keep=2)
    Records(at("b"))
    found_there = Candidates(at("b") / "candidates").find(sha256_of(path)[:6])
    assert found_there.read_text() == "two"


@everywhere
@pytest.mark.parametrize("operation", ["put", "put_if", "after"])
def test_a_change_that_is_killed_is_not_made_or_made_whole_and_the_next_one_succeeds(at, monkeypatch, operation):
    found_with(at("a"), "one")
    write = getattr(Remote, "put_if" if operation == "after" else operation)
    calls = []

    def killed(remote: Remote, *arguments: Any) -> Any:
        calls.append(arguments)
        if operation == "after":
            write(remote, *arguments)
        if operation != "put" or len(calls) > 1:
            raise KeyboardInterrupt
        return write(remote, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "put_if" if operation == "after" else operation, killed)
        with pytest.raises(KeyboardInterrupt):
            promote_by_hand(at("a"), "two")
    there = "two" if operation == "after" else "one"
    assert text_of(at("a")) == text_of(at("b")) == there
    promote_by_hand(at("b"), "three")
    assert text_of(at("a")) == "three"
    assert len(Records(at("a")).history()) == (3 if there == "two" else 2)


@everywhere
def test_without_production_nothing_is_compared_or_promoted_and_first_founds_it_once(at):
    for change in (lambda: promote_by_hand(at("a"), "one"), lambda: access.expect_founded(at("a"))):
        with pytest.raises(RegraftError, match=r"there is no production at .*run `regraft promote --first`"):
            change()
    found_with(at("a"), "one")
    with pytest.raises(RegraftError, match=r"there is production at .* already"):
        found(at("b"), patience=1)
    assert text_of(at("b")) == "one"


def test_production_that_vanished_is_not_taken_for_a_first_model(at, address):
    found_with(at("a"), "one")
    Remote(address).remove("production.json")
    with pytest.raises(RegraftError, match="is gone: this machine knows models of it"):
        Records(at("a"))


def test_a_damaged_pointer_is_no_first_model(at, address):
    found_with(at("a"), "one")
    Remote(address).put("production.json", b'{"format": 2}')
    for name in "ab":
        with pytest.raises(RegraftError, match=r"production\.json at .* is damaged"):
            Records(at(name))


def test_a_pointer_cannot_name_files_outside_its_folder():
    good = json.loads(remote_registry.Pointer().as_bytes())
    stored = {"sha256": "a" * 64, "size": 1, "object": f"{'a' * 64}-{'b' * 8}"}
    assert read_pointer(json.dumps(good | {"files": {"versions/x.onnx": stored}}).encode())
    for name in ("../x", "/x", "a/../x", ".x", "a/.git/x", "", "a//b", "a\\b", "a\nb", "x" * 201, "a/b/c/d/e"):
        assert read_pointer(json.dumps(good | {"files": {name: stored}}).encode()) is None
    for key, value in (("object", "../../x"), ("sha256", "x"), ("size", -1)):
        assert read_pointer(json.dumps(good | {"files": {"x": stored | {key: value}}}).encode()) is None


def test_files_whose_object_is_lost_or_has_other_bytes_are_named(at, address):
    found_with(at("a"), "one")
    name, place = f"objects/{pointer_at(address).files['log.jsonl'].object}", Remote(address)
    for damage in (lambda: place.put(name, b"x"), lambda: place.remove(name)):
        damage()
        for _ in range(2):
            with pytest.raises(RegraftError, match=rf"names for log\.jsonl is not there.*{name}"):
                Records(at("b"))


def test_a_lost_model_is_damaged_production_and_a_rollback_goes_to_the_one_before(at, address):
    found_with(at("a"), "one", "two")
    Remote(address).remove(f"objects/{pointer_at(address).files['model.onnx'].object}")
    assert "is damaged" in (Records(at("b")).standing().problem or "")
    add_rows(at("b"), [])
    Production(at("b")).rollback()
    assert text_of(at("b")) == text_of(at("c")) == "one"


def test_a_mirror_that_is_removed_during_a_change_takes_nothing_from_the_address(at):
    found_with(at("a"), "one", "two")

    def lose_it() -> None:
        with exclusive(at("a"), "something", patience=1):
            shutil.rmtree(at("a"))
            at("a").mkdir(parents=True)
            (at("a") / "verdicts.jsonl").write_text("{}")

    with pytest.raises(RegraftError, match="removed while it was in use"):
        lose_it()
    assert text_of(at("b")) == "two"


def test_a_copy_for_services_follows_the_pointer_and_the_next_run_repairs_it(at, address):
    found_with(at("a"), "one")
    publish(at("a"), patience=1)
    promote_by_hand(at("a"), "two")  # killed before it published
    assert Remote(address).get("model.onnx") == b"one"
    publish(at("b"), patience=1)
    assert Remote(address).get("model.onnx") == b"two"
    assert (Remote(address).get("model.onnx.sha256") or b"").startswith(sha256_of(at("a") / "model.onnx").encode())


def test_what_no_pointer_names_goes_after_a_day(at, address, monkeypatch):
    monkeypatch.setattr(remote_registry, "_SWEEP_EVERY", 2)
    found_with(at("a"))
    young, old = (f"{digit * 64}-{digit * 8}" for digit in "ab")
    for name in (young, old, "not-ours"):
        Remote(address).put(f"objects/{name}", b"x")
    list_now = Remote.list

    def aged(remote: Remote, folder: str) -> dict[str, Entry]:
        entries = list_now(remote, folder)
        return {
            name: replace(each, written=0.0 if name in (old, "not-ours") else each.written)
            for name, each in entries.items()
        }

    monkeypatch.setattr(Remote, "list", aged)
    for number in range(2):
        with exclusive(at("a"), "a change", patience=1):
            (at("a") / "verdicts.jsonl").write_text(f"{number}\n")
    left = Remote(address).list("objects").keys()
    assert old not in left
    assert {young, "not-ours"} | {stored.object for stored in pointer_at(address).files.values()} <= left


# S3 alone.


def test_an_address_that_cannot_be_reached_is_an_error_and_never_no_model(tmp_path, s3, monkeypatch):
    found_with(worker(tmp_path / "a", s3), "one")
    monkeypatch.setattr(S3FileSystem, "_call_s3", _unreachable)
    for name in "ab":
        with pytest.raises(
            RegraftError, match="The production at s3://bucket cannot be reached: ConnectionError"
        ) as stop:
            Records(worker(tmp_path / name, s3))
        assert "private" not in str(stop.value)


async def _unreachable(*_: Any, **__: Any) -> None:
    raise ConnectionError("https://user:secret@host/private")


def test_nothing_has_to_be_listed(tmp_path, s3, monkeypatch):
    call = S3FileSystem._call_s3

    async def without_listing(files: S3FileSystem, method: str, *arguments: Any, **named: Any) -> Any:
        if method.startswith("list"):
            raise PermissionError(errno.EACCES, "Access Denied")
        try:
            return await call(files, method, *arguments, **named)
        except FileNotFoundError:  # so that nobody learns which keys there are
            raise PermissionError(errno.EACCES, "Forbidden") from None

    monkeypatch.setattr(S3FileSystem, "_call_s3", without_listing)
    monkeypatch.setattr(remote_registry, "_SWEEP_EVERY", 2)
    a, b = worker(tmp_path / "a", s3), worker(tmp_path / "b", s3)
    with pytest.raises(RegraftError, match=r"may be read but not listed.*`regraft promote --first` founds one"):
        Records(a)
    found_with(a, "one", "two")
    publish(a, patience=1)
    Production(b).rollback()
    for number in range(2):
        with exclusive(a, "a change", patience=1):
            (a / "verdicts.jsonl").write_text(f"{number}\n")
    assert text_of(a) == text_of(b) == "one"


def test_a_server_that_drops_every_tenth_call_before_or_after_it_did_it_costs_time_alone(tmp_path, s3, monkeypatch):
    from botocore.exceptions import ConnectionClosedError

    send, calls = AIOHTTPSession.send, []

    async def sometimes(session: Any, request: Any) -> Any:
        calls.append(request.method)
        if len(calls) % 20 == 10:
            raise ConnectionClosedError(endpoint_url="private", error="closed")
        answer = await send(session, request)
        if len(calls) % 20 == 0:
            raise ConnectionClosedError(endpoint_url="private", error="closed")
        return answer

    monkeypatch.setattr(AIOHTTPSession, "send", sometimes)
    monkeypatch.setattr("botocore.retryhandler.random.random", lambda: 0.01)  # of a second that it waits
    a, b = worker(tmp_path / "a", s3), worker(tmp_path / "b", s3)
    found_with(a, "zero")
    for number in range(6):
        with exclusive(a, "a change", patience=1):
            (a / "verdicts.jsonl").write_text(f"{number}\n")
    Records(b)
    assert (b / "verdicts.jsonl").read_text() == "5\n"
    assert len(calls) > 40


def test_a_reader_whose_mirror_is_as_the_pointer_says_asks_for_the_pointer_alone(tmp_path, s3, monkeypatch):
    a = worker(tmp_path / "a", s3)
    found_with(a, "one")
    call, calls = S3FileSystem._call_s3, []

    async def counted(files: S3FileSystem, method: str, *arguments: Any, **named: Any) -> Any:
        calls.append((method, named.get("Key", "").rpartition("/")[2]))
        return await call(files, method, *arguments, **named)

    monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
    assert Records(a).digest
    assert calls == [("get_object", "production.json")]
