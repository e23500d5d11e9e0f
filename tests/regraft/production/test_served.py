"""models/production as a Triton repository: what is served, under which number, and what is left alone."""

from pathlib import Path

import pytest

from regraft.errors import RegraftError
from regraft.files import sha256_of
from regraft.production.registry import Production
from regraft.production.served import CARD, bring_up_to_date
from regraft.serving.golden import read_golden
from regraft.serving.triton import versions_in
from tests.support.production import promote
from tests.support.served import CLASSES, promote_and_serve, roll_back_and_serve, serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "production"


def served(folder: Path) -> tuple[int, str]:
    """The version that Triton takes, and the SHA-256 of its model."""
    version = versions_in(folder / "regraft")[-1]
    return version, sha256_of(folder / "regraft" / str(version) / "model.onnx")


def test_what_is_promoted_is_served_under_the_number_of_its_line_in_the_log(folder):
    for version, gain in enumerate((1.0, 2.0, 3.0), start=1):
        promote_and_serve(folder, gain)
        assert served(folder) == (version, sha256_of(folder / "model.onnx"))


def test_a_rollback_is_a_higher_version_with_the_bytes_of_the_model_before(folder):
    promote_and_serve(folder, 1.0)
    before = served(folder)
    promote_and_serve(folder, 2.0)
    roll_back_and_serve(folder)
    assert served(folder) == (3, before[1])


def test_versions_rise_although_the_log_was_lost(folder):
    for gain in (1.0, 2.0, 3.0):
        promote_and_serve(folder, gain)
    (folder / "log.jsonl").unlink()
    promote_and_serve(folder, 4.0)
    assert served(folder) == (4, sha256_of(folder / "model.onnx"))


def test_the_version_before_stays_and_older_ones_go(folder):
    for gain in (1.0, 2.0, 3.0, 4.0):
        promote_and_serve(folder, gain)
    assert versions_in(folder / "regraft") == [3, 4]


def test_a_second_look_changes_nothing(folder):
    promote_and_serve(folder, 1.0)
    before = {path: path.stat().st_mtime_ns for path in (folder / "regraft").rglob("*")}
    assert bring_up_to_date(Production(folder)) is None
    assert {path: path.stat().st_mtime_ns for path in (folder / "regraft").rglob("*")} == before


def test_labels_are_the_classes_in_the_order_of_the_probabilities(folder):
    promote_and_serve(folder, 1.0)
    assert (folder / "regraft" / "labels.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES)
    promote_and_serve(folder, 1.0, ("b", "a"))
    assert (folder / "regraft" / "labels.txt").read_text(encoding="utf-8").splitlines() == ["b", "a"]


def test_what_others_put_beside_the_versions_stays(folder):
    promote_and_serve(folder, 1.0)
    own = folder / "regraft" / "configs" / "gpu.pbtxt"
    own.parent.mkdir()
    own.write_text("mine")
    other = folder / "regraft" / "1" / "model.onnx.sha256"
    other.unlink()  # as of a version that somebody else wrote
    for gain in (2.0, 3.0, 4.0):
        promote_and_serve(folder, gain)
    assert own.read_text() == "mine"
    assert versions_in(folder / "regraft") == [1, 3, 4]


def test_a_version_whose_bytes_were_changed_is_followed_by_a_sound_one(folder):
    promote_and_serve(folder, 1.0)
    (folder / "regraft" / "1" / "model.onnx").write_bytes(b"damaged")
    serve(folder)
    assert served(folder) == (2, sha256_of(folder / "model.onnx"))


@pytest.mark.parametrize("name", ["golden.json", "golden.png"])
def test_a_golden_photo_that_was_lost_is_drawn_again(folder, name):
    promote_and_serve(folder, 1.0)
    (folder / "regraft" / "1" / name).unlink()
    serve(folder)
    golden = read_golden(folder / "regraft" / str(served(folder)[0]))
    assert golden is not None
    assert golden.model == sha256_of(folder / "model.onnx")


def test_of_a_damaged_model_in_production_nothing_is_made_and_what_is_served_stays(folder):
    promote_and_serve(folder, 1.0)
    before = served(folder)
    (folder / "model.onnx").write_bytes(b"damaged")
    assert bring_up_to_date(Production(folder)) is None
    assert served(folder) == before


def test_a_model_that_regraft_did_not_export_is_named_and_production_stays(folder):
    promote(folder, "a text")
    with pytest.raises(RegraftError, match="is not a model exported by Regraft"):
        serve(folder)
    assert Production(folder).standing().problem is None
    assert not (folder / "regraft").exists()


def test_a_model_card_comes_along_if_it_is_of_this_model_and_comes_back_with_it(folder, tmp_path):
    card = tmp_path / "model_card.md"
    promote_and_serve(folder, 1.0)
    card.write_text("# Of another model")
    bring_up_to_date(Production(folder), card)
    assert not (folder / "regraft" / "1" / CARD).exists()
    card.write_text(f"# Model {sha256_of(folder / 'model.onnx')}")
    bring_up_to_date(Production(folder), card)
    promote_and_serve(folder, 2.0)
    assert not (folder / "regraft" / "2" / CARD).exists()
    roll_back_and_serve(folder)
    assert (folder / "regraft" / "3" / CARD).read_text() == card.read_text()


def test_the_same_model_gets_the_same_golden_photo(folder, tmp_path):
    promote_and_serve(folder, 1.0)
    promote_and_serve(tmp_path / "again", 1.0)
    for name in ("golden.json", "golden.png"):
        assert (folder / "regraft" / "1" / name).read_bytes() == (tmp_path / "again/regraft/1" / name).read_bytes()
