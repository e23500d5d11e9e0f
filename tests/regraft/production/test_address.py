"""Production at an address: workers with empty disks find it, change it one after the other, and lose nothing."""

import errno
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.httpsession import AIOHTTPSession
from s3fs import S3FileSystem

from regraft.core import patience
from regraft.core.errors import InputsChanged, Overtaken, RegraftError
from regraft.core.files import sha256_of
from regraft.core.patience import set_patience
from regraft.production import mirror
from regraft.production.exclusive import exclusive, found, publish
from regraft.production.place import Place, _until_larger
from regraft.production.pointer import Stored, read_pointer
from regraft.production.records import Records
from regraft.production.registry import Candidates, Grounds, Production
from regraft.production.run_history import Row, add_rows, read_rows
from tests.support.at_address import found_with, pointer_at, promote_by_hand, worker
from tests.support.production import promote_by_gate, write_candidate


@pytest.fixture(autouse=True)
def _look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers in one process would be one command otherwise."""
    monkeypatch.setattr(mirror, "_LOOK_SECONDS", 0.0)


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


def test_after_a_rollback_by_another_worker_the_gate_of_no_worker_promotes_until_a_person_does(at):
    found_with(at("a"), "one", "two")
    Production(at("b")).rollback(by=" by somebody")
    for name in ("a", "c"):
        assert "by somebody" in (Records(at(name)).waits_since() or "")
        with pytest.raises(InputsChanged, match="only a person may promote a model now"):
            promote_by_gate(at(name), "three")
    path, production = write_candidate(at("b"), "three"), Production(at("b"))
    grounds = Grounds(sha256_of(path), is_by_hand=True, approved_by="somebody")
    production.promote(path, "by hand", keep=2, grounds=grounds)
    promote_by_gate(at("a"), "four")
    assert text_of(at("c")) == "four"


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
    write = Place.replace

    def overtaken(place: Place, *pointer: Any) -> bool:
        if meanwhile:
            add_rows(at("a"), [meanwhile.pop()])
        return write(place, *pointer)

    monkeypatch.setattr(Place, "replace", overtaken)
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
@pytest.mark.parametrize("operation", ["send_object", "replace", "after"])
def test_a_change_that_is_killed_is_not_made_or_made_whole_and_the_next_one_succeeds(at, monkeypatch, operation):
    found_with(at("a"), "one")
    write = getattr(Place, "replace" if operation == "after" else operation)
    calls = []

    def killed(place: Place, *arguments: Any) -> Any:
        calls.append(arguments)
        if operation == "after":
            write(place, *arguments)
        if operation != "send_object" or len(calls) > 1:
            raise KeyboardInterrupt
        return write(place, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "replace" if operation == "after" else operation, killed)
        with pytest.raises(KeyboardInterrupt):
            promote_by_hand(at("a"), "two")
    there = "two" if operation == "after" else "one"
    assert text_of(at("a")) == text_of(at("b")) == there
    promote_by_hand(at("b"), "three")
    assert text_of(at("a")) == "three"
    assert len(Records(at("a")).history()) == (3 if there == "two" else 2)


@everywhere
def test_without_production_nothing_is_compared_or_promoted_and_first_founds_it_once(at):
    for change in (lambda: promote_by_hand(at("a"), "one"), lambda: mirror.expect_founded(at("a"))):
        with pytest.raises(RegraftError, match=r"there is no production at .*run `regraft promote --first`"):
            change()
    found_with(at("a"), "one")
    with pytest.raises(RegraftError, match=r"there is production at .* already"):
        found(at("b"), patience=1)
    assert text_of(at("b")) == "one"


def test_production_that_vanished_is_not_taken_for_a_first_model(at, address):
    found_with(at("a"), "one")
    Place(address).remove("production.json")
    with pytest.raises(RegraftError, match="is gone: this machine knows models of it"):
        Records(at("a"))


def test_a_folder_of_this_machine_needs_no_founding(tmp_path):
    with pytest.raises(RegraftError, match="puts a first model there by itself"):
        found(tmp_path / "models" / "production", patience=1)


def test_a_damaged_pointer_is_no_first_model(at, address):
    found_with(at("a"), "one")
    Place(address).write("production.json", b'{"format": 2}')
    for name in "ab":
        with pytest.raises(RegraftError, match=r"production\.json at .* is damaged"):
            Records(at(name))


def test_a_pointer_cannot_name_files_outside_its_folder():
    good = json.loads(mirror.Pointer().as_bytes())
    stored = {"sha256": "a" * 64, "size": 1, "object": f"{'a' * 64}-{'b' * 8}"}
    assert read_pointer(json.dumps(good | {"files": {"versions/x.onnx": stored}}).encode())
    for name in ("../x", "/x", "a/../x", ".x", "a/.git/x", "", "a//b", "a\\b", "a\nb", "x" * 201, "a/b/c/d/e"):
        assert read_pointer(json.dumps(good | {"files": {name: stored}}).encode()) is None
    for key, value in (("object", "../../x"), ("sha256", "x"), ("size", -1)):
        assert read_pointer(json.dumps(good | {"files": {"x": stored | {key: value}}}).encode()) is None


def test_files_whose_object_is_lost_or_has_other_bytes_are_named(at, address):
    found_with(at("a"), "one")
    name, place = f"objects/{pointer_at(address).files['log.jsonl'].object}", Place(address)
    for damage in (lambda: place.write(name, b"x"), lambda: place.remove(name)):
        damage()
        for _ in range(2):
            with pytest.raises(RegraftError, match=rf"names for log\.jsonl is not there.*{name}"):
                Records(at("b"))


@everywhere
def test_an_object_that_is_larger_than_the_pointer_says_is_not_fetched(at, address, tmp_path, monkeypatch):
    found_with(at("a"), "one")
    stored, written = pointer_at(address).files["model.onnx"], []
    Place(address).write(f"objects/{stored.object}", bytes(2**24))
    fetch = Place.fetch_object

    def watched(place: Place, stored: Any, target: Path) -> None:
        try:
            fetch(place, stored, target)
        finally:
            written.append(target.stat().st_size)

    monkeypatch.setattr(Place, "fetch_object", watched)
    assert "is damaged" in (Records(at("b")).standing().problem or "")
    assert max(written) < 2**16


def test_a_transfer_that_does_not_say_how_large_it_is_ends_where_the_object_should(tmp_path):
    place, stored = Place(f"memory://{tmp_path}"), Stored.new("0" * 64, 10)
    place.write(f"objects/{stored.object}", bytes(2**24))
    with pytest.raises(FileNotFoundError):
        place._files.get_file(
            place._path(f"objects/{stored.object}"), str(tmp_path / "x"), callback=_without_size(stored.size)
        )
    assert (tmp_path / "x").stat().st_size < 2**23


def _without_size(most: int) -> Any:
    callback = _until_larger(most)
    callback.set_size = lambda _: None
    return callback


def test_production_that_went_back_is_said_once_and_a_rollback_is_none(at, address, capsys):
    found_with(at("a"), "one", "two")
    place = Place(address)
    Records(at("b"))
    earlier = place.read("production.json")
    assert earlier
    Production(at("a")).rollback()
    promote_by_hand(at("a"), "three")
    Records(at("b"))
    assert "Warning" not in capsys.readouterr().err
    place.write("production.json", earlier)
    Records(at("b"))
    said = capsys.readouterr().err
    assert re.match(
        r"Warning: production at memory:// went back: .* seen change 4 of 20.*, and now .* change 2 of", said
    )
    Records(at("b"))
    assert capsys.readouterr().err == ""


def test_a_lost_model_is_damaged_production_and_a_rollback_goes_to_the_one_before(at, address):
    found_with(at("a"), "one", "two")
    Place(address).remove(f"objects/{pointer_at(address).files['model.onnx'].object}")
    assert "is damaged" in (Records(at("b")).standing().problem or "")
    add_rows(at("b"), [])
    Production(at("b")).rollback()
    assert text_of(at("b")) == text_of(at("c")) == "one"


def test_what_a_hand_changed_in_the_mirror_counts_for_nothing(at):
    found_with(at("a"), "one")
    (at("a") / "model.onnx").write_text("mine")
    (at("a") / "rolled_back").mkdir()
    (at("a") / "rolled_back" / "x.json").write_text("{}")
    assert text_of(at("a")) == "one"
    assert not (at("a") / "rolled_back").exists()


def test_a_mirror_that_is_removed_during_a_change_takes_nothing_from_the_address(at):
    found_with(at("a"), "one", "two")

    def lose_it() -> None:
        with exclusive(at("a"), "something", patience=1):
            shutil.rmtree(at("a"))
            at("a").mkdir(parents=True)
            (at("a") / "verdicts.jsonl").write_text("{}")

    with pytest.raises(RegraftError, match="removed or changed while it was in use"):
        lose_it()
    assert text_of(at("b")) == "two"


def test_a_copy_for_services_follows_the_pointer_and_the_next_run_repairs_it(at, address):
    found_with(at("a"), "one")
    publish(at("a"), patience=1)
    promote_by_hand(at("a"), "two")  # killed before it published
    assert Place(address).read("model.onnx") == b"one"
    publish(at("b"), patience=1)
    assert Place(address).read("model.onnx") == b"two"
    assert (Place(address).read("model.onnx.sha256") or b"").startswith(sha256_of(at("a") / "model.onnx").encode())


def test_what_no_pointer_names_goes_after_a_day(at, address, monkeypatch):
    monkeypatch.setattr(mirror, "_SWEEP_EVERY", 2)
    found_with(at("a"))
    young, old = (f"{digit * 64}-{digit * 8}" for digit in "ab")
    for name in (young, old, "not-ours"):
        Place(address).write(f"objects/{name}", b"x")
    modified = Place.modified
    ages = {f"objects/{old}": 90_000.0, "objects/not-ours": 90_000.0}
    monkeypatch.setattr(Place, "modified", lambda place, name: (modified(place, name) or 0) - ages.get(name, 0.0))
    for number in range(2):
        with exclusive(at("a"), "a change", patience=1):
            (at("a") / "verdicts.jsonl").write_text(f"{number}\n")
    left = Place(address).sizes("objects").keys()
    assert old not in left
    assert {young, "not-ours"} | pointer_at(address).objects() <= left


# S3 alone.


def test_an_address_that_cannot_be_reached_is_an_error_and_never_no_model(tmp_path, s3, monkeypatch):
    found_with(worker(tmp_path / "a", s3), "one")
    monkeypatch.setattr("regraft.production.place.Place._contents", _unreachable)
    for name in "ab":
        with pytest.raises(
            RegraftError, match="The production at s3://bucket cannot be reached: ConnectionError"
        ) as stop:
            Records(worker(tmp_path / name, s3))
        assert "private" not in str(stop.value)


def test_an_address_that_was_away_a_moment_ago_is_not_tried_again_and_again(tmp_path, s3, monkeypatch):
    tried = []
    monkeypatch.setattr(Place, "_contents", lambda place: tried.append(place) or _unreachable(place))
    for _ in range(3):
        with pytest.raises(RegraftError, match="cannot be reached: ConnectionError"):
            Records(worker(tmp_path / "a", s3))
    assert len(tried) == 1


def test_an_address_that_takes_connections_and_says_nothing_is_unreachable_when_the_time_is_over(
    tmp_path, monkeypatch, impatient
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(S3FileSystem, "cachable", False)  # the one of other tests knows another server
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        start = time.monotonic()
        for _ in range(2):
            with pytest.raises(RegraftError, match=r"cannot be reached: TimeoutError .*machine\.remote_timeout"):
                found_with(worker(tmp_path / "a", "s3://silent/private"), "one")
            with pytest.raises(RegraftError, match="cannot be reached: TimeoutError"):
                Records(worker(tmp_path / "a", "s3://silent/private"))
    assert time.monotonic() - start < 20 * impatient  # of which one client of S3 is made


def test_a_place_that_cannot_even_be_opened_is_unreachable_when_the_time_is_over(tmp_path, monkeypatch, impatient):
    monkeypatch.setattr("regraft.store.remote.Remote._opened", lambda *_: time.sleep(40 * impatient))
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(RegraftError, match="production at sftp://host cannot be reached: TimeoutError"):
            Records(worker(tmp_path / "a", "sftp://host/private"))
    assert time.monotonic() - start < 20 * impatient


@pytest.fixture
def impatient() -> Iterator[float]:
    """Seconds after which an address counts as unreachable."""
    before = patience._seconds[0]
    set_patience(0.5)
    yield 0.5
    set_patience(before)


def _unreachable(place: Place) -> None:
    with place._reaching():
        raise ConnectionError(f"https://user:secret@host/private {place}")


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
    monkeypatch.setattr(mirror, "_SWEEP_EVERY", 2)
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
