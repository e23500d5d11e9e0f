import numpy as np
import pandas as pd

from regraft.features.table import Features
from regraft.production.training_data import Reference, compared_features
from tests.support.points import clouds, write_points


def features_in(folder) -> Features:
    return write_points(folder / "features", *clouds(0))


def reference_of(features: Features, known: int, namespace: str, *, sampled: int | None = None) -> Reference:
    rows = pd.DataFrame(
        {"digest": features.digests[:known], "label": [f"class {number % 3}" for number in range(known)]}
    )
    rows["sampled"] = np.arange(known) < (known if sampled is None else sampled)
    return Reference(rows, features.read(np.flatnonzero(rows.sampled)), namespace)


def groups_of(features: Features) -> dict[str, str]:
    """Every photo is a group of its own."""
    return {digest: digest for digest in features.digests}


def test_new_photos_are_those_that_the_model_was_not_trained_on(tmp_path):
    features = features_in(tmp_path)
    reference = reference_of(features, 100, features.namespace)
    found = compared_features((reference, "With a model."), "production", features, groups_of(features))
    assert found.samples is not None
    known, new = found.samples
    assert np.array_equal(known.features, features.read(np.arange(100)))
    assert np.array_equal(new.features, features.read(np.arange(100, 300)))
    assert new.labels[:4].tolist() == ["class 1", "class 2", "class 0", "class 1"]
    assert known.labels[:2].tolist() == ["class 0", "class 1"]
    assert (found.against, found.words) == ("production", "With a model.")


def test_photos_of_one_group_count_once_and_those_of_a_known_group_are_not_new(tmp_path):
    features = features_in(tmp_path)
    reference = reference_of(features, 100, features.namespace)
    groups = groups_of(features)
    for group in (range(10), range(90, 150), range(200, 240)):  # of the reference; of both; new
        groups |= {features.digests[row]: f"group {group}" for row in group}
    known, new = compared_features((reference, ""), "production", features, groups).samples or ((), ())
    assert len(known) == 100 - 9 - 9
    assert len(new) == 50 + 1 + 60


def test_a_photo_that_was_trained_on_is_not_new_although_its_features_were_not_kept(tmp_path):
    features = features_in(tmp_path)
    reference = reference_of(features, 280, features.namespace, sampled=60)
    known, new = compared_features((reference, ""), "anchor", features, groups_of(features)).samples or ((), ())
    assert (len(known), len(new)) == (60, 20)


def test_photos_of_the_reference_that_are_gone_still_count(tmp_path):
    features = features_in(tmp_path)
    reference = reference_of(features, 100, features.namespace)
    reference.rows["digest"] = [f"gone {number}" for number in range(100)]
    known, new = compared_features((reference, ""), "production", features, groups_of(features)).samples or ((), ())
    assert (len(known), len(new)) == (100, 300)


def test_features_of_another_backbone_are_not_compared(tmp_path):
    features = features_in(tmp_path)
    reference = reference_of(features, 100, "features-other")
    found = compared_features((reference, "With a model."), "production", features, groups_of(features))
    assert found.samples is None
    assert "has another backbone" in found.words


def test_without_a_reference_the_reason_is_passed_on(tmp_path):
    features = features_in(tmp_path)
    found = compared_features((None, "No model is in production yet."), "production", features, groups_of(features))
    assert (found.samples, found.words) == (None, "No model is in production yet.")
