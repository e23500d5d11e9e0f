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
    "missing": (lambda path: path.unlink(), "it is not there"),
    "a folder": (_folder, "it is no regular file"),
    "a named pipe": (_replaced_by(os.mkfifo), "it is no regular file"),
    "a link to the right bytes": (_link, "it is a link"),
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
        RegraftError, match=r"no earlier model in .* to go back to, .* `regraft promote --force REASON`"
    ):
        production.rollback()


# Where the folder says nothing.


def test_an_empty_folder_whose_log_names_a_model_is_not_one_without_a_model(production):
    shutil.rmtree(production.versions)
    production.model.unlink()
    assert "model.onnx is damaged" in production.standing().problem
    with pytest.raises(InputsChanged, match="production changed"):
        promote_by_gate(production.folder, "three")


def test_a_damaged_log_alone_says_that_there_was_a_model(production):
    shutil.rmtree(production.versions)
    production.model.unlink()
    production.log.path.write_bytes(b"\x00\xff garbage\n")
    assert "model.onnx is damaged" in production.standing().problem


@pytest.mark.parametrize("name", ["production.lock", "log.jsonl", "change.json", "versions"])
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
    "depth": b"[" * 15_000,
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


def test_words_of_the_log_cannot_steer_a_terminal(production):
    line = {"at": "2026-11-25T22:00:00+00:00", "action": "found", "sha256": digest(production, "two")}
    production.log.path.write_bytes(log_lines(line | {"words": "\x1b[2J\x07 two\nlines"}))
    assert production.history()[-1].words == r"\x1b[2J\x07 two lines"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_data_that_is_no_file_is_data_that_is_not_known(production, make):
    path = production.data_of(digest(production, "two"))
    path.unlink()
    make(path)
    reference, words = production.find_reference()
    assert reference is None
    assert "It is not known what the model in production" in words


# What was rolled back from.


def test_a_model_that_was_rolled_back_from_is_not_promoted_by_the_gate(production):
    production.rollback(by=" by alice on a laptop")
    with pytest.raises(InputsChanged, match=r"UTC: Rolled back from \w{12} by alice on a laptop\."):
        promote_by_gate(production.folder, "two")
    assert production.model.read_text() == "one"


def test_a_promotion_by_hand_takes_it_back_and_another_rollback_keeps_it_out_again(production):
    two = digest(production, "two")
    production.rollback()
    promote(production.folder, "two")
    assert (production.rolled_back(two), production.model.read_text()) == (None, "two")
    production.rollback()
    assert production.rolled_back(two)


def test_a_model_that_changed_after_it_was_looked_at_is_not_promoted(production):
    path, grounds = write_candidate(production.folder, "three"), Grounds("a" * 64, production.digest, is_by_hand=True)
    with pytest.raises(InputsChanged, match="the new model changed after it was judged"):
        production.promote(path, "by hand", keep=5, grounds=grounds)
    assert production.model.read_text() == "two"
