"""Whatever lies in models/production: what counts as a model, what a rollback restores, and what a log can do."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.core.errors import InputsChanged, RegraftError
from regraft.core.files import sha256_of
from regraft.production.registry import Grounds, Production
from tests.support.production import promote, promote_by_gate, roll_back, write_candidate


@pytest.fixture
def production(tmp_path: Path) -> Production:
    """Zero, one and two have been promoted; two is in production."""
    folder = tmp_path / "models" / "production"
    for contents in ("zero", "one", "two"):
        promote(folder, contents)
    return Production(folder)


def digest(production: Production, contents: str) -> str:
    return sha256_of(write_candidate(production.folder, contents))


def _folder(path: Path) -> None:
    path.unlink()
    (path / "something").mkdir(parents=True)


def _link(path: Path) -> None:
    target = path.with_name("elsewhere.onnx")
    path.rename(target)
    path.symlink_to(target)


def _replaced_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda path: path.write_text("tw"), "has other bytes"),
    "empty": (lambda path: path.write_text(""), "has other bytes"),
    "other bytes of the same length": (lambda path: path.write_text("twO"), "has other bytes"),
    "missing": (lambda path: path.unlink(), "it is not there"),
    "a folder": (_folder, "it is no regular file"),
    "a named pipe": (_replaced_by(os.mkfifo), "it is no regular file"),
    "a link to the right bytes": (_link, "it is a link"),
    "a link to nothing": (_replaced_by(lambda path: path.symlink_to("nowhere")), "it is a link"),
    "a link to a device": (_replaced_by(lambda path: path.symlink_to("/dev/zero")), "it is a link"),
}
each_damage = pytest.mark.parametrize("kind", DAMAGE)


@each_damage
def test_a_damaged_model_is_named_with_the_one_that_should_be_there(production, kind):
    DAMAGE[kind][0](production.model)
    standing = production.standing()
    assert (standing.digest, standing.named) == (None, digest(production, "two"))
    assert DAMAGE[kind][1] in standing.problem
    assert f"It should be {digest(production, 'two')[:12]}, since 2" in standing.problem


@each_damage
def test_a_rollback_from_a_damaged_model_puts_its_own_sound_copy_back_and_keeps_nothing_out(production, kind):
    DAMAGE[kind][0](production.model)
    change = production.rollback()
    assert (change.action, production.model.read_text(), production.standing().problem) == ("restored", "two", None)
    assert production.rolled_back(digest(production, "two")) is None
    assert production.rollback().sha256 == digest(production, "one")


@each_damage
def test_without_a_sound_copy_a_rollback_goes_to_the_last_good_version(production, kind):
    production.version_of(digest(production, "two")).write_text("tw")
    DAMAGE[kind][0](production.model)
    change = production.rollback(by=" by alice")
    assert (change.action, production.model.read_text()) == ("rolled back", "one")
    assert change.words.startswith(f"Rolled back from {digest(production, 'two')[:12]} by alice.")


@each_damage
def test_a_person_can_promote_over_a_damaged_model_and_what_lay_there_is_kept(production, kind):
    DAMAGE[kind][0](production.model)
    was_there = os.path.lexists(production.model)
    promote(production.folder, "three")
    assert (production.model.read_text(), production.standing().problem) == ("three", None)
    assert len(list(production.folder.glob("damaged-*.onnx"))) == was_there


@each_damage
def test_the_gate_promotes_nothing_over_a_model_that_was_damaged_while_it_compared(production, kind):
    grounds = Grounds(digest(production, "three"), production.digest)
    DAMAGE[kind][0](production.model)
    path = write_candidate(production.folder, "three")
    with pytest.raises(InputsChanged, match="production changed while the new model was compared"):
        production.promote(path, "better", keep=5, grounds=grounds)


@pytest.mark.parametrize("kind", ["cut short", "missing", "a folder"])
def test_where_everything_is_damaged_a_rollback_says_what_is_left_to_do(production, kind):
    for version in production.versions.glob("*.onnx"):
        version.write_text("damaged")
    DAMAGE[kind][0](production.model)
    with pytest.raises(
        RegraftError, match=r"no earlier model in .* to go back to\. .* `regraft promote --force REASON`"
    ):
        production.rollback()


def test_the_data_of_a_damaged_model_is_that_of_the_one_that_should_be_there(production):
    production.model.unlink()
    reference, words = production.find_reference()
    assert reference is not None
    assert reference.rows.label[0] == "two"
    assert digest(production, "two")[:12] in words


# Where the folder says nothing.


def test_an_empty_folder_whose_log_names_a_model_is_not_one_without_a_model(production):
    shutil.rmtree(production.versions)
    production.model.unlink()
    assert "model.onnx is damaged" in production.standing().problem
    with pytest.raises(InputsChanged, match="production changed"):
        promote_by_gate(production.folder, "three")


@pytest.mark.parametrize("log", [None, b"", b"\xff\x00" * 500, b'{"at": 1}\n', b"[" * 100_000 + b"\n"])
def test_versions_without_a_model_or_a_log_say_that_there_was_one(production, log):
    production.model.unlink()
    production.log.path.unlink()
    if log is not None:
        production.log.path.write_bytes(log)
    assert "model.onnx is damaged" in production.standing().problem
    assert production.rollback().sha256 == digest(production, "two")


def test_a_damaged_log_alone_says_that_there_was_a_model(production):
    shutil.rmtree(production.versions)
    production.model.unlink()
    production.log.path.write_bytes(b"\x00\xff garbage")
    assert "model.onnx is damaged" in production.standing().problem


def test_a_folder_behind_a_link_to_nothing_is_a_share_that_is_away(production, tmp_path):
    production.folder.rename(tmp_path / "share")
    production.folder.symlink_to(tmp_path / "share")
    roll_back(production.folder)
    assert production.model.read_text() == "one"
    (tmp_path / "share").rename(tmp_path / "unmounted")
    assert "is a link to a folder that is not there" in production.standing().problem
    with pytest.raises(RegraftError, match="could not be changed"):
        promote(production.folder, "three")


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "production").write_text("a file")
    production = Production(tmp_path / "production")
    assert "cannot be read: Not a directory" in str(production.standing().problem)
    with pytest.raises(RegraftError, match=r"could not be changed: .*It should be a folder"):
        promote(production.folder, "one")


@pytest.mark.parametrize("name", ["production.lock", "log.jsonl", "change.json", "versions", "rolled_back"])
def test_what_blocks_a_change_is_named_and_production_stays_sound(production, name):
    path = production.folder / name
    if path.suffix:
        path.unlink(missing_ok=True)
        (path / "something").mkdir(parents=True)
    else:
        if path.exists():
            path.rename(production.folder / "away")
        path.write_text("a file")
    with pytest.raises(RegraftError, match=name):
        promote(production.folder, "three")
    assert production.model.read_text() in ("two", "three")
    assert production.standing().problem is None or name == "versions"


# The log is data.


def log_lines(*lines: object) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


WRONG = {
    "garbage": bytes(range(256)),
    "wrong types": {"at": 1, "action": 2, "sha256": 3, "words": 4},
    "a list": [1, 2],
    "depth": b"[" * 15_000,
    "a number of many digits": b'{"at": ' + b"9" * 5000 + b"}",
    "an unknown action": {"at": "2026-11-25T22:00:00+00:00", "action": "burnt", "sha256": "a" * 64, "words": ""},
    "a path": {"at": "2026-11-25T22:00:00+00:00", "action": "promoted", "sha256": "../../outside", "words": ""},
    "an endless line": b"x" * 50_000,
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_line_of_the_log_is_passed_over_and_counted(production, kind):
    before = production.history()
    first, *rest = production.log.path.read_bytes().splitlines()
    production.log.path.write_bytes(log_lines(first, WRONG[kind], *rest))
    assert (production.history(), production.log.read()[1]) == (
        before,
        1 + (kind == "garbage"),
    )  # it has an end of line
    assert production.rollback().sha256 == digest(production, "one")


def test_a_last_line_that_is_wrong_leaves_the_model_that_is_there_in_production(production):
    *lines, _ = production.log.path.read_bytes().splitlines()
    production.log.path.write_bytes(log_lines(*lines, b"garbage"))
    assert production.standing().digest == digest(production, "two")
    promote_by_gate(production.folder, "three")
    assert [change.action for change in production.history()] == ["promoted", "promoted", "found", "promoted"]


def test_no_name_from_the_log_reaches_a_path(production, tmp_path):
    outside = tmp_path / "outside.onnx"
    outside.write_text("secret")
    lines = [
        {"at": "2026-11-25T22:00:00+00:00", "action": action, "sha256": "../../../outside", "words": "", "left": left}
        for action in ("promoted", "rolled back")
        for left in (None, "../../../outside", "a" * 63)
    ]
    production.log.path.write_bytes(production.log.path.read_bytes() + log_lines(*lines))
    (production.folder / "change.json").write_text(json.dumps(lines[0]))
    assert production.rollback().sha256 == digest(production, "one")
    assert outside.read_text() == "secret"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "outside.onnx"]


def test_a_log_of_a_gigabyte_costs_as_much_as_its_end(production):
    whole = production.log.path.read_bytes()
    with production.log.path.open("r+b") as file:
        file.seek(2**30)
        file.write(b"\n" + whole)
    assert len(production.history()) == 3
    roll_back(production.folder)
    assert (production.model.read_text(), len(production.history())) == ("one", 4)


def test_a_last_line_without_its_end_counts_and_is_ended(production):
    production.log.path.write_bytes(production.log.path.read_bytes().rstrip(b"\n"))
    assert len(production.history()) == 3
    roll_back(production.folder)
    assert len(production.history()) == 4


def test_words_of_the_log_cannot_steer_a_terminal(production):
    line = {"at": "2026-11-25T22:00:00+00:00", "action": "found", "sha256": digest(production, "two")}
    production.log.path.write_bytes(log_lines(line | {"words": "\x1b[2J\x07 two\nlines"}))
    assert production.history()[-1].words == r"\x1b[2J\x07 two lines"


def test_a_copy_that_a_killed_rollback_was_about_to_put_back_is_not_lost_with_the_log(production):
    """After both the copy is all that is left of the model."""
    one = digest(production, "one")
    production.model.unlink()
    change = {"at": "2026-11-25T22:00:00+00:00", "action": "rolled back", "sha256": one, "words": ""}
    for log in (None, b"garbage\n"):
        production.log.path.unlink()
        production.log.path.write_bytes(log or b"")
        production.pending.write_text(json.dumps(change))
        with pytest.raises(InputsChanged):
            promote_by_gate(production.folder, "three")
        assert production.is_kept(one)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_data_that_is_no_file_is_data_that_is_not_known(production, make):
    path = production.data_of(digest(production, "two"))
    path.unlink()
    make(path)
    reference, words = production.find_reference()
    assert reference is None
    assert "it is not known what it was trained on" in words


# What was rolled back from.


def test_a_model_that_was_rolled_back_from_is_not_promoted_by_the_gate(production):
    production.rollback(by=" by alice on a laptop")
    with pytest.raises(InputsChanged, match=r"UTC: Rolled back from \w{12} by alice on a laptop\."):
        promote_by_gate(production.folder, "two")
    assert production.model.read_text() == "one"


@pytest.mark.parametrize("lost", ["log.jsonl", "rolled_back", "nothing"])
def test_it_stays_out_after_other_promotions_when_its_version_and_one_of_the_records_are_gone(production, lost):
    two = digest(production, "two")
    production.rollback()
    for contents in ("three", "four", "five"):
        promote(production.folder, contents, keep=1)
    assert not production.version_of(two).exists()
    path = production.folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert "It was rolled back from at 2" in production.rolled_back(two)


@pytest.mark.parametrize("mark", [b"", b"\xff garbage", b"{}"])
def test_a_damaged_mark_still_keeps_the_model_out(production, mark):
    two = digest(production, "two")
    production.rollback()
    production.log.path.unlink()
    production.mark_of(two).write_bytes(mark)
    assert "does not say any more when, or by whom" in production.rolled_back(two)


def test_a_promotion_by_hand_takes_it_back_and_another_rollback_keeps_it_out_again(production):
    two = digest(production, "two")
    production.rollback()
    promote(production.folder, "two")
    assert (production.rolled_back(two), production.model.read_text()) == (None, "two")
    production.rollback()
    assert production.rolled_back(two)


def test_a_log_from_before_this_was_recorded_still_tells(production):
    """Its rollbacks do not name what they left, but the line before each does."""
    production.rollback()
    shutil.rmtree(production.folder / "rolled_back")
    lines = [json.loads(line) for line in production.log.path.read_text().splitlines()]
    for line in lines:
        line.pop("left", None)
    production.log.path.write_bytes(log_lines(*lines))
    assert production.rolled_back(digest(production, "two"))
    assert production.rolled_back(digest(production, "one")) is None


def test_a_model_that_changed_after_it_was_looked_at_is_not_promoted(production):
    path, grounds = write_candidate(production.folder, "three"), Grounds("a" * 64, production.digest, is_by_hand=True)
    with pytest.raises(InputsChanged, match="the new model changed after it was looked at"):
        production.promote(path, "by hand", keep=5, grounds=grounds)
    assert production.model.read_text() == "two"
