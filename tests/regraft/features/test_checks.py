from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.config import CheckFeatures
from regraft.errors import InvalidData
from regraft.features.checks import check, write_label_errors
from regraft.params_file import load_params
from regraft.photos.dataset import Dataset
from regraft.production.training_data import Reference, compared_features
from tests.support.points import clouds, splits_of, write_points


@pytest.fixture
def settings(root: Path) -> CheckFeatures:
    """The project's own settings; made-up points of one class are more alike than photos are."""
    return changed(load_params(root / "params.yaml").check_features, leaks={"min_similarity": 0.999})


def changed(settings: CheckFeatures, **changes: dict[str, object]) -> CheckFeatures:
    """Settings of some checks changed, as `changed(settings, leaks={"severity": "off"})`."""
    contents = settings.model_dump()
    for name, values in changes.items():
        contents[name] |= values
    return CheckFeatures.model_validate(contents)


@pytest.fixture
def checked(settings: CheckFeatures, tmp_path: Path):
    """A function that checks made-up features: the report and the ranked labels."""

    def run(points, labels, in_production=None, **changes):
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
            changed(settings, **changes),
            in_production,
            compared_with="With a model.",
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
    assert (report["leaks"], report["label_errors"], report["drift"]) == ([], [], None)
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
    report, _ = checked(*with_a_leak(), leaks={"severity": severity})
    assert report["success"] is success
    assert [each["success"] for each in report["expectations"] if each["name"] == "no_leaks"] == found


def test_checks_that_are_off_are_not_made(checked):
    off: dict[str, object] = {"severity": "off"}
    report, labels = checked(*with_a_leak(), leaks=off, label_errors=off, outliers=off)
    assert (report["expectations"], report["leaks"], report["outliers"]) == ([], [], [])
    assert labels.empty


def test_photos_unlike_those_of_the_model_in_production_are_drift(checked):
    points, labels = clouds(0)
    new = clouds(1)[0][:60]
    reports = [checked(points, labels, (points, photos))[0] for photos in (new, new[:, ::-1])]
    assert [entry(report, "no_drift")["success"] for report in reports] == [True, False]
    assert reports[1]["drift"]["new"] == 60
    assert reports[1]["compared_with"] == "With a model."


def test_too_few_new_photos_are_said_to_be_too_few(checked):
    points, labels = clouds(0)
    report = checked(points, labels, (points, points[:5]))[0]
    assert (report["drift"], report["compared_with"]) == (
        None,
        "With a model. Too few photos are new to tell drift from chance.",
    )


def reference_of(features, known: int, namespace: str) -> Reference:
    rows = pd.DataFrame({"digest": features.digests[:known], "sampled": True})
    return Reference(rows, features.read(np.arange(known)), namespace)


def test_new_photos_are_those_that_the_model_in_production_was_not_trained_on(tmp_path):
    features = write_points(tmp_path / "features", *clouds(0))
    reference = reference_of(features, 100, features.namespace)
    compared, words = compared_features(reference, features, "With a model.")
    assert compared is not None
    assert np.array_equal(compared[0], features.read(np.arange(100)))
    assert np.array_equal(compared[1], features.read(np.arange(100, 300)))
    assert words == "With a model."


def test_features_of_another_backbone_are_not_compared(tmp_path):
    features = write_points(tmp_path / "features", *clouds(0))
    compared, words = compared_features(reference_of(features, 100, "features-other"), features, "With a model.")
    assert compared is None
    assert "has another backbone" in words


def test_without_a_reference_the_reason_is_passed_on(tmp_path):
    features = write_points(tmp_path / "features", *clouds(0))
    assert compared_features(None, features, "No model is in production yet.") == (
        None,
        "No model is in production yet.",
    )


def test_the_features_of_another_data_set_are_refused(settings, tmp_path):
    points, labels = clouds(0)
    features = write_points(tmp_path / "features", points, labels)
    other = Dataset(pd.DataFrame({"digest": ["0"]}), features.class_names, tmp_path)
    with pytest.raises(InvalidData, match=r"not those of the data set\. Run the stage cache_features again"):
        check(features, other, settings, None, compared_with="", on_progress=lambda *_: None)


def test_the_same_features_give_the_same_report_and_list(checked, tmp_path):
    lists = []
    for name in ("one", "two"):
        report, labels = checked(*with_a_leak())
        write_label_errors(tmp_path / name, labels)
        lists.append((report, (tmp_path / name).read_bytes()))
    assert lists[0] == lists[1]
    assert lists[0][1].startswith(b"path,label,suggested,score,likely\nclass ")
