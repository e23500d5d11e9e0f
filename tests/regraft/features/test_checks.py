from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from regraft.core.config import CheckFeatures
from regraft.core.errors import InvalidData
from regraft.core.params_file import load_params
from regraft.features import checks
from regraft.features.checks import check
from regraft.features.drift import Comparison, Sample
from regraft.photos.dataset import Dataset
from regraft.validation.checks import warnings_of
from tests.support.points import clouds, splits_of, write_points


@pytest.fixture
def settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> CheckFeatures:
    """The project's own settings, where a single leak counts."""
    monkeypatch.setattr(checks, "MOST_LEAKS", 0.0)
    return load_params(root / "params.yaml").check_features


@pytest.fixture
def checked(settings: CheckFeatures, tmp_path: Path):
    """A function that checks made-up features: the report and the ranked labels."""

    def run(points, labels, *comparisons, groups=None, **changes):
        features = write_points(tmp_path / "features", points, labels)
        images = len(points)
        rows = pd.DataFrame(
            {
                "digest": features.digests[:images],
                "path": [f"class {label}/{number}.jpg" for number, label in enumerate(labels)],
                "class_name": [f"class {label}" for label in labels],
                "class_index": labels,
                "split": splits_of(images),
            }
        )
        dataset = Dataset(rows, features.class_names, tmp_path)
        return check(
            features,
            dataset,
            features.digests[:images] if groups is None else groups,
            settings.model_copy(update=changes),
            comparisons,
            on_progress=lambda *_: None,
        )

    return run


def entry(report, name: str):
    (found,) = [each for each in report["expectations"] if each["name"] == name]
    return found


def with_a_leak():
    points, labels = clouds(0)
    splits = splits_of(300)
    points[np.flatnonzero(splits == "test")[0]] = points[np.flatnonzero(splits == "train")[0]]
    return points, labels


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_set_raises_nothing(checked, seed):
    report, labels = checked(*clouds(seed))
    assert [each["success"] for each in report["expectations"]] == [True] * 3
    assert (report["leaks"], report["label_errors"], report["drift"]) == ([], [], [])
    assert len(labels) == 300


def test_a_leak_names_both_photos_with_their_splits(checked):
    report, _ = checked(*with_a_leak())
    (leak,) = report["leaks"]
    assert (leak["split"], leak["other_split"], leak["similarity"]) == ("test", "train", 1)
    (offender,) = entry(report, "no_leaks")["offenders"]
    assert leak["path"] in offender
    assert leak["other_path"] in offender


def test_a_wrong_label_is_first_in_the_list_and_said_to_be_likely(checked):
    points, labels = clouds(0)
    labels[9] = 1
    report, ranked = checked(points, labels)
    first = ranked.iloc[0]
    assert (first.path, first.label, first.suggested, first.likely) == ("class 1/9.jpg", "class 1", "class 0", True)
    assert report["label_errors"][0]["path"] == "class 1/9.jpg"
    assert entry(report, "right_labels")["success"]  # one in 300 is no more than label_errors.max


@pytest.mark.parametrize(
    ("severity", "success", "found"), [("error", False, [False]), ("warn", True, [False]), ("off", True, [])]
)
def test_only_a_violated_check_of_severity_error_is_no_success(checked, severity, success, found):
    report, _ = checked(*with_a_leak(), leaks=severity)
    assert report["success"] is success
    assert [each["success"] for each in report["expectations"] if each["name"] == "no_leaks"] == found


def compared(against: Literal["production", "anchor"], known, new) -> Comparison:
    ones, others = (Sample(points, np.full(len(points), "any")) for points in (known, new))
    return Comparison(against, f"With {against}.", (ones, others))


def test_photos_unlike_those_of_the_model_in_production_are_drift(checked):
    points, labels = clouds(0)
    new = clouds(1)[0][:60]
    reports = [checked(points, labels, compared("production", points, each))[0] for each in (new, new[:, ::-1])]
    assert [entry(report, "no_drift")["success"] for report in reports] == [True, False]
    (drift,) = reports[1]["drift"]
    assert (drift["against"], drift["compared_with"]) == ("production", "With production.")
    assert drift["figures"]["new"] == 60
    assert warnings_of(reports[0]) == []
    (words,) = warnings_of(reports[1])
    assert words.startswith("no_drift is violated: distances with a stability index of ")


def test_drift_against_the_anchor_is_a_check_of_its_own_and_the_chance_is_that_of_both(checked):
    points, labels = clouds(0)
    new, far = clouds(1)[0][:60], clouds(1)[0][:60, ::-1]
    alone = checked(points, labels, compared("production", points, new))[0]
    both = checked(points, labels, compared("production", points, new), compared("anchor", points, far))[0]
    assert [entry(both, name)["success"] for name in ("no_drift", "no_slow_drift")] == [True, False]
    assert "the anchor" in entry(both, "no_slow_drift")["expected"]
    limits = [report["drift"][0]["figures"]["shift_limit"] for report in (alone, both)]
    assert limits[0] < limits[1]


def test_the_features_of_another_data_set_are_refused(settings, tmp_path):
    points, labels = clouds(0)
    features = write_points(tmp_path / "features", points, labels)
    other = Dataset(pd.DataFrame({"digest": ["0"]}), features.class_names, tmp_path)
    with pytest.raises(InvalidData, match=r"not those of the data set\. Run the stage cache_features again"):
        check(features, other, ["0"], settings, [], on_progress=lambda *_: None)


def test_of_a_large_set_a_sample_is_looked_at_and_says_so_with_an_interval(checked, monkeypatch):
    points, labels = with_a_leak()
    whole, everything = checked(points, labels)
    assert (whole["images"], whole["looked_at"], len(everything)) == (300, 300, 300)
    assert "sample" not in str(whole["expectations"])
    monkeypatch.setattr(checks, "MAX_PHOTOS", 50)
    report, ranked = checked(points, labels)
    assert (report["images"], report["looked_at"], len(ranked)) == (300, 150, 150)
    assert ranked.row.max() > 150
    assert all(ranked.path == [f"class {labels[row]}/{row}.jpg" for row in ranked.row])
    assert entry(report, "right_labels")["found"] == "1 of 150; 0.7% (0.1% to 3.7%), as this is a sample"
    assert entry(report, "no_leaks")["found"] == "1 of 100, in 1 pair(s); 1.0% (0.2% to 5.4%), as this is a sample"
