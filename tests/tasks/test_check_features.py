import shutil

import pandas as pd
import pytest
from PIL import Image

from regraft.core.errors import InvalidData
from regraft.core.files import read_json, sha256_of
from regraft.features import checks
from tasks.cache_features import cache_features
from tasks.check_features import check_features
from tasks.preprocess import preprocess
from tasks.validate_data import validate_data
from tests.support.library import dataset_in
from tests.support.small_project import changed, quiet

REPORTS = ["embeddings.json", "label_errors.csv", "features_verdict.json"]
# Photos of noise look nearly alike to a backbone with random weights.
OFF = {"label_errors": "off", "outliers": "off"}
ONLY_COPIES = OFF | {"leaks": "error"}

BY_CONTENT = {"max_hash_distance": None}  # validation would leave such a copy out of train


@pytest.fixture
def only_copies(monkeypatch):
    monkeypatch.setattr(checks, "EXPECTED_LEAKS", 0.01)
    monkeypatch.setattr(checks, "MOST_LEAKS", 0.0)


def split_folders(project):
    """Give the photos as a user does who has split them, and one of them in two splits, saved as another file."""
    raw = project / "data" / "raw"
    for photo in dataset_in(project).photos():
        target = raw / photo.split / photo.class_name
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(raw / photo.path, target)
    for name in ("red", "grün", "deep blue"):
        (raw / name).rmdir()
    train = sorted((raw / "train" / "red").iterdir())[0]
    Image.open(train).save(raw / "test" / "red" / "copied.png", compress_level=1)
    return f"train/red/{train.name}"


def test_every_photo_is_in_the_list_once_the_least_believable_first(project):
    table = pd.read_csv(project / "reports" / "label_errors.csv")
    assert list(table.columns) == ["path", "label", "suggested", "score", "likely", "split", "group"]
    assert set(table.path) == set(dataset_in(project).rows.path)
    assert table.score.is_monotonic_increasing
    assert table.score.between(0, 1).all()


def test_the_same_features_give_the_same_bytes(project, small_params):
    before = [sha256_of(project / "reports" / name) for name in REPORTS]
    check_features.function(small_params, quiet)
    assert [sha256_of(project / "reports" / name) for name in REPORTS] == before


@pytest.mark.usefixtures("only_copies")
def test_a_copy_across_splits_stops_the_run_and_is_named(project, small_params):
    path = split_folders(project)
    params = changed(small_params, check_features=ONLY_COPIES, validate_data=BY_CONTENT)
    for stage in (validate_data, preprocess, cache_features):
        stage.function(params, quiet)
    (project / "reports" / "features_verdict.json").unlink()  # as DVC does before a stage runs
    with pytest.raises(InvalidData) as stop:
        check_features.function(params, quiet)
    assert f"test/red/copied.png (test) is nearly {path} (train): 1.000" in str(stop.value)
    assert ", in 1 pair(s)" in str(stop.value)
    assert "Remove one of the two" in str(stop.value)
    assert not read_json(project / "reports" / "embeddings.json")["success"]
    assert not (project / "reports" / "features_verdict.json").exists()


@pytest.mark.usefixtures("only_copies")
def test_a_check_that_only_warns_lets_training_begin(project, small_params):
    split_folders(project)
    params = changed(
        small_params,
        check_features=OFF,
        validate_data=BY_CONTENT,
    )
    for stage in (validate_data, preprocess, cache_features, check_features):
        stage.function(params, quiet)
    assert len(read_json(project / "reports" / "embeddings.json")["leaks"]) == 1


@pytest.mark.parametrize("settings", [{"leaks": "note"}, OFF | {"leaks": "off"}])
def test_a_setting_that_stops_nothing_leaves_what_training_depends_on(project, small_params, settings):
    before = sha256_of(project / "reports" / "features_verdict.json")
    check_features.function(changed(small_params, check_features=settings), quiet)
    assert sha256_of(project / "reports" / "features_verdict.json") == before
