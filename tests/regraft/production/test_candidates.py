"""Models that the gate did not promote."""

from pathlib import Path

import pytest

from regraft.core.errors import InputsChanged, RegraftError
from regraft.core.files import sha256_of
from regraft.production.registry import Candidates
from tests.support.production import data_of


@pytest.fixture
def candidates(tmp_path: Path) -> Candidates:
    return Candidates(tmp_path / "candidates")


def add(candidates: Candidates, contents: str, keep: int = 5) -> str:
    """Keep a text as a candidate, and return its SHA-256."""
    path = candidates.folder.parent / "model.onnx"
    path.write_text(contents)
    digest = sha256_of(path)
    candidates.add(path, digest, f"Refused: {contents}", reference=data_of(contents), keep=keep)
    return digest


def test_a_candidate_is_found_by_the_beginning_of_its_digest_with_all_that_is_known_of_it(candidates):
    digest = add(candidates, "one")
    assert candidates.find(digest[:8].upper()).read_text() == "one"
    assert candidates.words_of(digest) == "Refused: one"
    reference = candidates.reference_of(digest)
    assert reference is not None
    assert reference.rows.label.tolist() == ["one"]


def test_only_the_newest_are_kept(candidates):
    digests = [add(candidates, each, keep=2) for each in ("one", "two", "three")]
    assert candidates.digests() == [digests[2], digests[1]]
    assert sorted(path.stem for path in candidates.folder.iterdir()) == sorted([*digests[1:]] * 3)


def test_one_that_is_added_again_is_the_newest(candidates):
    first, second = add(candidates, "one"), add(candidates, "two")
    assert candidates.digests() == [second, first]
    add(candidates, "one")
    assert candidates.digests() == [first, second]


@pytest.mark.parametrize("beginning", ["", "zz", "0123"])
def test_what_fits_none_or_several_names_those_that_are_there(candidates, beginning):
    one, two = add(candidates, "one"), add(candidates, "two")
    with pytest.raises(
        RegraftError, match=rf"Received: '{beginning}', which fits [02]\. There are: {two[:12]}, {one[:12]}"
    ):
        candidates.find(beginning)


def test_a_damaged_candidate_is_not_given_out(candidates):
    digest = add(candidates, "one")
    (candidates.folder / f"{digest}.onnx").write_text("another")
    with pytest.raises(RegraftError, match="is damaged: its bytes are not those that were kept"):
        candidates.find(digest)


def test_a_model_that_changed_since_it_was_judged_is_not_kept(candidates, tmp_path):
    (tmp_path / "model.onnx").write_text("another")
    with pytest.raises(InputsChanged):
        candidates.add(tmp_path / "model.onnx", "0" * 64, "", reference=None, keep=5)
    assert candidates.digests() == []
