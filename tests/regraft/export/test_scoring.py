import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from regraft.cluster.connection import Cluster
from regraft.cluster.jobs import Seat
from regraft.core.errors import RegraftError
from regraft.export import scoring_on_cluster
from regraft.export.scoring import answers_of, open_said, probabilities_of
from regraft.export.scoring_on_cluster import Asking
from regraft.photos.images import Threads
from regraft.photos.in_sight import InSight
from regraft.store.shards import key_of
from tests.support.library import dataset_of

LOCAL = Cluster("local:1", threads=1, show=print, tell=print)


def test_a_data_set_is_read_in_its_own_order(colour_classifier, dataset):
    classifier = colour_classifier(["red", "green", "blue"])
    together = probabilities_of(classifier, dataset, Threads(2), stored=None)
    one_by_one = [classifier.probabilities(dataset.read_photo(photo)) for photo in dataset.photos()]
    assert np.array_equal(together, one_by_one)


def test_progress_counts_every_photo(colour_classifier, dataset):
    calls = []
    threads = Threads(1, lambda *call: calls.append(call))
    probabilities_of(colour_classifier(["red", "green", "blue"]), dataset.head(3), threads, stored=None)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_photo_that_changed_since_it_was_validated_is_refused(colour_classifier, photo, tmp_path):
    for name in ("a", "b"):
        for split in ("train", "val", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(photo(len(name + split), 8, 8)).save(tmp_path / split / name / f"{name}{split}.png")
    dataset = dataset_of(tmp_path)
    changed = dataset.rows.path[3]
    Image.new("RGB", (8, 8)).save(tmp_path / changed)
    with pytest.raises(RegraftError, match=rf"{re.escape(changed)} has changed since it was validated"):
        probabilities_of(colour_classifier(["a", "b", "c"]), dataset, Threads(1), stored=None)


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


def test_another_file_has_said_nothing_yet(colour_classifier, tmp_path):
    ours, theirs = (open_said(tmp_path, colour_classifier(names)) for names in (["a", "b", "c"], ["a", "b", "d"]))
    assert ours.folder != theirs.folder


def test_workers_say_the_same_as_this_process(colour_classifier, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring_on_cluster, "_FEW", 1)
    classifier, photos, calls = colour_classifier(["a", "b", "c"]), dataset.head(6), []
    stored = open_said(tmp_path / "store", classifier)
    threads = Threads(1, lambda *call: calls.append(call))
    said = answers_of(classifier, photos, threads, stored=stored, cluster=LOCAL).probabilities
    assert np.array_equal(said, probabilities_of(classifier, photos, Threads(1), stored=None))
    assert calls[-1] == (6, 6)
    assert len(open_said(tmp_path / "store", classifier)) == 6


def test_a_worker_leaves_out_a_photo_that_it_cannot_read(colour_classifier, dataset, tmp_path):
    classifier, photos = colour_classifier(["a", "b", "c"]), dataset.head(3).photos()
    job = Asking(classifier.contents, is_frozen=False, photos=InSight.of(dataset, photos))
    part = job.begin(Seat(1, 1, tmp_path))([photos[0], replace(photos[1], path="gone.png"), photos[2]])
    assert part.keys == [key_of(photos[0].source), key_of(photos[2].source)]
    assert np.array_equal(part.rows[1], classifier.probabilities(dataset.read_photo(photos[2])))
    assert part.photos == 3


def test_few_photos_and_known_ones_start_no_cluster(colour_classifier, dataset, tmp_path):
    nowhere = replace(LOCAL, address="tcp://127.0.0.1:9")
    stored = open_said(tmp_path, classifier := colour_classifier(["a", "b", "c"]))
    answers_of(classifier, dataset.head(3), Threads(1), stored=stored, cluster=nowhere)
    assert len(stored) == 3
