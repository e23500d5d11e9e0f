import numpy as np

from regraft.export.classifier import open_said, probabilities_of
from regraft.photos.images import Threads


def test_a_data_set_is_read_in_its_own_order(colour_classifier, dataset):
    classifier = colour_classifier(["red", "green", "blue"])
    together = probabilities_of(classifier, dataset, Threads(2), stored=None)
    one_by_one = [classifier.probabilities(dataset.read_photo(photo)) for photo in dataset.photos()]
    assert np.array_equal(together, one_by_one)


def test_a_photo_that_this_file_has_seen_is_not_run_again(colour_classifier, dataset, tmp_path):
    classifier = colour_classifier(["a", "b", "c"])

    def run(photos, calls):
        threads = Threads(1, lambda *call: calls.append(call))
        return probabilities_of(classifier, photos, threads, stored=open_said(tmp_path / "store", classifier))

    run(dataset.head(3), [])
    calls: list[tuple[int, int]] = []
    together = run(dataset.head(5), calls)
    assert calls == [(1, 2), (2, 2)]
    alone = probabilities_of(classifier, dataset.head(5), Threads(1), stored=None)
    assert np.array_equal(together, alone)
