"""Inputs of fine-tuning, batch by batch: activations from the store, or pixels that are drawn anew."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.photos.views import Views

if TYPE_CHECKING:
    from regraft.store.namespace import Namespace


class Inputs(Protocol):
    """Inputs of a network, read ahead of the steps."""

    def __call__(self, batches: Iterable[np.ndarray], epoch: int) -> Iterator[np.ndarray]:
        """Yield the inputs of each batch: positions of images, shape (n,), to any numeric dtype, shape (n, ...)."""
        ...


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one split."""

    inputs: Inputs
    class_indices: np.ndarray  # int, shape (images,)

    def __len__(self) -> int:
        return len(self.class_indices)


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Images to train on, and images held back to judge."""

    train: Images
    val: Images
    num_classes: int


def training_images(dataset: Dataset, inputs_of: Callable[[Dataset], Inputs]) -> TrainingImages:
    """Return the train and val images of a data set, with what reads their inputs."""
    train, val = (
        Images(inputs_of(part), part.rows.class_index.to_numpy()) for part in (dataset.of("train"), dataset.of("val"))
    )
    return TrainingImages(train, val, len(dataset.class_names))


def cached_activations(dataset: Dataset, activations: "Namespace", views: Views, *, seed: int) -> Inputs:
    """Return a reader of the activations of a data set from the store, float16, a few batches ahead.

    Each image starts at a view of its own, so an epoch is a mix of all views, and takes the next one in each epoch, so
    all of them are seen equally often. Val images have one view only.
    """
    sources, splits = dataset.sources(), dataset.rows.split.tolist()
    counts = np.array([len(views.of(split)) for split in splits])
    first = np.random.default_rng(seed).integers(views.count + 1, size=len(sources))

    def read(positions: np.ndarray, epoch: int) -> np.ndarray:
        chosen = (first[positions] + epoch) % counts[positions]
        keys = [views.key(sources[position], int(view)) for position, view in zip(positions, chosen, strict=True)]
        return activations.read(keys)

    return lambda batches, epoch: Threads(1).map(lambda positions: read(positions, epoch), batches)


def live_pixels(dataset: Dataset, views: Views, threads: Threads) -> Inputs:
    """Return a reader that decodes the photos of a data set and draws them, uint8, a few dozen ahead.

    In epoch n a training image is its augmented view n, so every epoch has new ones, and the same ones whenever it is
    run; any other image is its centre square.
    """
    photos = dataset.photos()

    def read(batches: Iterable[np.ndarray], epoch: int) -> Iterator[np.ndarray]:
        batches = list(batches)

        def draw(position: int) -> np.ndarray:
            photo = photos[position]
            with dataset.opened(photo, shorter_side=views.shorter_side) as rgb:
                return views.draw(rgb, photo.digest, [epoch if photo.split == "train" else 0])[0]

        drawn = threads.map(draw, (int(position) for batch in batches for position in batch))
        for batch in batches:
            yield np.stack(list(islice(drawn, len(batch))))

    return read
