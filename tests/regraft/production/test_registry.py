from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.production.registry import Production
from tests.support.production import data_of

Candidate = Callable[[str], Path]


@pytest.fixture
def production(tmp_path: Path) -> Production:
    return Production(tmp_path / "production")


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    """A function that writes a new model of the given contents, read-only as DVC's outputs may be."""

    def write(contents: str) -> Path:
        path = tmp_path / f"{contents}.onnx"
        path.write_text(contents)
        path.chmod(0o444)
        return path

    return write


@pytest.fixture
def promote(production: Production, candidate: Candidate) -> Callable[..., None]:
    """A function that promotes new models, one after the other."""

    def run(*contents: str, keep: int = 5) -> None:
        for text in contents:
            production.promote(candidate(text), f"because of {text}", keep=keep)

    return run


def versions(production: Production) -> set[str]:
    return {path.read_text() for path in (production.folder / "versions").glob("*.onnx")}


def test_the_log_says_when_what_and_why_oldest_first(production, candidate, promote):
    promote("one", "zwéi")
    history = production.history()
    assert [(change.sha256, change.words) for change in history] == [
        (sha256_of(candidate(text)), f"because of {text}") for text in ("one", "zwéi")
    ]
    assert all(change.at.endswith("+00:00") for change in history)


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(1, {"one", "three", "four"}), (2, {"one", "two", "three", "four"}), (9, {"one", "two", "three", "four"})],
)
def test_the_anchor_and_as_many_earlier_models_are_kept_as_asked_for(production, promote, keep, expected):
    promote("one", "two", "three", "four", keep=keep)
    assert versions(production) == expected


def test_promoting_a_model_again_does_not_push_out_another(production, promote):
    promote("one", "two", "two", "two", keep=1)
    assert versions(production) == {"one", "two"}


def test_a_rollback_is_logged_with_what_it_left(production, promote):
    promote("one", "two")
    left = production.digest
    change = production.rollback(by=" by alice on a laptop")
    assert (change.sha256, change.left) == (production.digest, left)
    assert change.words == f"Rolled back from {left[:12]} by alice on a laptop."


def test_a_second_rollback_goes_one_model_further_back(production, promote):
    # The one after it is the model that the first rollback fled from.
    promote("one", "two", "three")
    production.rollback()
    production.rollback()
    assert production.model.read_text() == "one"


def test_a_rollback_to_the_model_in_production_is_refused_and_logs_nothing(production, promote):
    promote("one")
    log = (production.folder / "log.jsonl").read_bytes()
    with pytest.raises(RegraftError, match="is in production already, and sound"):
        production.rollback(to=production.standing().digest[:12])
    assert (production.folder / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize("promoted", [[], ["one"]])
def test_without_an_earlier_model_a_rollback_is_refused_and_changes_nothing(production, promote, promoted):
    promote(*promoted)
    before = production.digest
    with pytest.raises(
        RegraftError, match=r"no earlier model in .*versions to go back to, .*model\.onnx stays as it is"
    ):
        production.rollback()
    assert production.digest == before


def test_a_damaged_earlier_model_is_not_put_into_production(production, promote):
    promote("one", "two")
    (earlier,) = (path for path in (production.folder / "versions").glob("*.onnx") if path.read_text() == "one")
    earlier.write_text("on")
    with pytest.raises(RegraftError):
        production.rollback()
    assert production.model.read_text() == "two"


def test_a_model_that_somebody_put_there_by_hand_can_be_rolled_back_to(production, promote):
    production.folder.mkdir()
    production.model.write_text("by hand")
    promote("one")
    production.rollback()
    assert production.model.read_text() == "by hand"


# What a model was trained on.


def promote_with_data(production: Production, candidate: Candidate, *contents: str, keep: int = 5) -> None:
    for text in contents:
        production.promote(candidate(text), f"because of {text}", keep=keep, reference=data_of(text))


def label_in(production: Production) -> str:
    reference, _ = production.find_reference()
    assert reference
    return reference.rows.label[0]


def test_the_data_in_production_is_that_of_the_model_in_production(production, candidate):
    promote_with_data(production, candidate, "one", "two")
    assert label_in(production) == "two"


def test_a_rollback_goes_back_to_the_data_too(production, candidate):
    promote_with_data(production, candidate, "one", "two")
    production.rollback()
    assert label_in(production) == "one"


def test_data_is_removed_together_with_its_model(production, candidate):
    promote_with_data(production, candidate, "one", "two", "three", "four", keep=1)
    data_of = {path.stem for path in (production.folder / "versions").glob("*.parquet")}
    assert data_of == {path.stem for path in (production.folder / "versions").glob("*.onnx")}
    assert len(data_of) == 3  # with that of the anchor


@pytest.mark.parametrize("promoted", [[], ["one"]])
def test_without_a_model_or_its_data_there_is_no_reference(production, promote, promoted):
    promote(*promoted)
    assert production.find_reference()[0] is None
