from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from regraft.photos.images import Threads
from regraft.training.training_loop import cached_activations, live_pixels


@pytest.fixture
def seen(store, monkeypatch) -> list[bytes]:
    """The keys whose activations are read, in order; there need not be any."""
    keys: list[bytes] = []
    monkeypatch.setattr(store.activations, "read", lambda wanted: keys.extend(wanted) or np.zeros(1))
    return keys


def test_every_view_of_every_image_is_seen_equally_often(dataset, store, views, seen):
    train_set, views = dataset.of("train"), replace(views, count=2)
    inputs = cached_activations(train_set, store.activations, views, seed=0)
    for epoch in range(1, 7):
        list(inputs([np.arange(len(train_set))], epoch))
        if epoch == 1:
            assert {key[-1] for key in seen} == {0, 1, 2}  # a mix of views
    assert set(Counter(seen).values()) == {2}
    assert len(set(seen)) == 3 * len(train_set)


def test_val_images_are_seen_as_they_are_served(dataset, store, views, seen):
    val_set = dataset.of("val")
    list(cached_activations(val_set, store.activations, views, seed=0)([np.arange(len(val_set))], 1))
    assert {key[-1] for key in seen} == {0}


def test_activations_come_as_they_are_stored_in_the_order_that_was_asked_for(dataset, store, views):
    train_set = dataset.of("train")
    inputs = cached_activations(train_set, store.activations, replace(views, count=0), seed=0)
    batches = [np.array([3, 1]), np.array([2])]
    expected = [
        store.activations.read([views.key(train_set.rows.digest[number], 0) for number in batch]) for batch in batches
    ]
    for received, wanted in zip(inputs(batches, 1), expected, strict=True):
        assert received.dtype == np.float16
        assert np.array_equal(received, wanted)


def test_pixels_are_new_in_every_epoch_and_the_same_in_every_run(dataset, views):
    def pixels(split, epoch: int) -> np.ndarray:
        part = dataset.of(split)
        return np.concatenate(list(live_pixels(part, views, Threads(2))([np.array([4, 0]), np.array([2])], epoch)))

    first = pixels("train", 1)
    assert (first.dtype, first.shape) == (np.uint8, (3, 64, 64, 3))
    assert np.array_equal(first, pixels("train", 1))
    assert all((ours != theirs).any() for ours, theirs in zip(first, pixels("train", 2), strict=True))
    assert np.array_equal(pixels("val", 1), pixels("val", 2))
    photo = dataset.of("train").photos()[4]
    assert np.array_equal(first[0], views.draw(dataset.read_photo(photo), photo.digest, [1])[0])
