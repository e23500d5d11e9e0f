import numpy as np
import pytest

from regraft.core.statistics import tango_interval
from regraft.export.robustness import UNDAMAGED, about, as_report, measure, reduced, write_rows
from regraft.photos.corruptions import KINDS, SEVERITIES
from regraft.photos.images import Threads
from regraft.serving.thresholds import Promise

SIDE = 48


@pytest.fixture
def photos(dataset):
    return dataset.of("test")


@pytest.fixture
def classifier(colour_classifier, dataset):
    return colour_classifier(dataset.class_names)  # the class is the largest of a photo's mean red, green and blue


def measured(classifier, photos, groups=None):
    groups = photos.rows.digest.to_numpy() if groups is None else groups
    return measure(classifier, photos, groups, side=SIDE, threads=Threads(2))


def test_there_is_a_row_for_every_severity_of_every_kind_and_one_without_damage(classifier, photos):
    rows, _ = measured(classifier, photos)
    expected = [(kind, severity) for kind in KINDS for severity in range(1, SEVERITIES + 1)]
    assert [(row.kind, row.severity) for row in rows] == [(UNDAMAGED, 0), *expected]
    assert [row.level for row in rows[1:]] == [level for kind in KINDS.values() for level in kind.levels]


def test_without_damage_the_accuracy_is_that_of_the_file_on_the_reduced_photos(classifier, photos):
    said = [classifier.probabilities(reduced(photos.read_photo(photo), SIDE)).argmax() for photo in photos.photos()]
    rows, same_as_raw = measured(classifier, photos)
    assert rows[0].accuracy == pytest.approx(np.mean(said == photos.rows.class_index.to_numpy()))
    raw = [classifier.probabilities(photos.read_photo(photo)).argmax() for photo in photos.photos()]
    assert same_as_raw == pytest.approx(np.mean(np.array(raw) == said))


def test_a_file_that_goes_by_mean_colour_loses_nothing_by_blur(classifier, photos):
    rows, _ = measured(classifier, photos)
    for row in rows:
        assert row.loss == pytest.approx(rows[0].accuracy - row.accuracy)
        assert row.kind != "blur" or row.loss == 0


def test_the_interval_of_a_loss_is_that_of_the_photos_that_change_between_right_and_wrong(classifier, photos):
    rows, _ = measured(classifier, photos)
    assert all(row.loss_low <= row.loss <= row.loss_high for row in rows)
    nothing_changes = tango_interval(0, 0, len(photos))
    blur = [(row.loss_low, row.loss_high) for row in rows if row.kind == "blur"]
    assert blur == [(nothing_changes.low, nothing_changes.high)] * SEVERITIES


def test_photos_of_one_group_count_once_in_the_interval_of_a_loss(classifier, photos):
    alone, _ = measured(classifier, photos)
    together, _ = measured(classifier, photos, groups=np.repeat("a", len(photos)))
    assert together[1].loss_high - together[1].loss_low > alone[1].loss_high - alone[1].loss_low


def test_a_file_that_may_be_unsure_says_how_many_photos_it_answers(classifier, photos):
    said = [classifier.probabilities(reduced(photos.read_photo(photo), SIDE)).max() for photo in photos.photos()]
    classifier.promise = Promise(float(np.median(said)), 0.9, 0.95)
    rows, _ = measured(classifier, photos)
    assert rows[0].answered == pytest.approx(np.mean(said >= np.median(said)))
    assert 0 < rows[0].answered < 1
    assert rows[0].novel is None


def test_a_large_photo_is_reduced_and_a_small_one_stays(photo):
    assert reduced(photo(0, 500, 300), SIDE).shape == (SIDE, 80, 3)
    small = photo(0, 40, 90)
    assert reduced(small, SIDE) is small


def test_other_photos_labels_or_groups_are_another_measurement(photos):
    groups = photos.rows.digest.to_numpy()
    first = about(photos, groups, SIDE)
    assert about(photos, groups, SIDE) == first
    relabelled = photos.with_rows(photos.rows.assign(class_index=(photos.rows.class_index + 1) % 3))
    for other in (
        about(photos.head(3), groups[:3], SIDE),
        about(relabelled, groups, SIDE),
        about(photos, np.repeat("a", len(photos)), SIDE),
        about(photos, groups, SIDE + 1),
    ):
        assert other != first


def test_the_table_has_a_line_per_file_kind_and_severity(classifier, photos, tmp_path):
    rows, same = measured(classifier, photos)
    report = as_report(rows, photos, photos.rows.digest.to_numpy(), same_as_raw=same, side=SIDE)
    write_rows(tmp_path / "robustness.csv", {"a.onnx": report["rows"], "b.onnx": report["rows"]})
    lines = (tmp_path / "robustness.csv").read_text().splitlines()
    assert lines[0].startswith("file,kind,severity,level,accuracy,low,high,loss,")
    assert len(lines) == 1 + 2 * len(rows)
