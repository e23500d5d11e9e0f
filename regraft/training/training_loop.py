"""The loop of fine-tuning: its inputs, the learning rate's schedule, the figures on val, and checkpoints.

Inputs are activations from the store, or pixels that are drawn anew in each epoch.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regraft.core.config import ClassWeight, FineTune
from regraft.core.errors import Damaged, RegraftError, some
from regraft.core.files import writing
from regraft.core.sealed import read_arrays, write_arrays
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.photos.views import Views
from regraft.training.metrics import Epoch, Score, class_weights, score
from regraft.training.trainer import VAL_BATCH, Images, Inputs, Trainer

if TYPE_CHECKING:
    from regraft.store.namespace import Namespace

BATCH_SIZE = 32  # images per step
LABEL_SMOOTHING = 0.05  # share of the target spread over all classes
_TIMED_STEPS = 3
_WARM_UP = 0.1  # share of all steps


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


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings and seed of a training."""

    settings: FineTune
    class_weight: ClassWeight  # of rare classes, as for the head
    seed: int  # of the order of images; dropout has its own state


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last finished epoch of one training; the file's name follows from everything that can change the training."""

    path: Path

    def read(self) -> dict[str, np.ndarray] | None:
        """Return the arrays that were written last, or None if there are none or the file is damaged."""
        try:
            return read_arrays(self.path)
        except (FileNotFoundError, Damaged):
            return None

    def write(self, arrays: dict[str, np.ndarray]) -> None:
        """Replace the file whole."""
        with writing(self.path.parent, sum(array.nbytes for array in arrays.values())):
            write_arrays(self.path, arrays)


class Training:
    """A training from its first epoch to its last, in one process or in several."""

    def __init__(self, trainer: Trainer, images: TrainingImages, plan: Plan, checkpoint: Checkpoint) -> None:
        """Go on from the checkpoint, or score the network as it is.

        Args:
            trainer: of the network; it has its own part of `plan.class_weight`.
            images: each train image is visited once per epoch, in an order that follows from seed and epoch; val is
                only measured.
            plan: settings and seed.
            checkpoint: written after each epoch.
        """
        self._trainer, self._train, self._val = trainer, images.train, images.val
        self._settings, self._seed = plan.settings, plan.seed
        num_classes = images.num_classes
        hard, even = np.eye(num_classes) * (1 - LABEL_SMOOTHING), LABEL_SMOOTHING / num_classes
        self._targets = (hard + even).astype(np.float32)
        self._targets *= class_weights(plan.class_weight, images.train.class_indices, num_classes)[:, None]
        self._checkpoint = checkpoint
        arrays = checkpoint.read()
        self.is_begun = arrays is not None
        if arrays:
            self._resume(arrays)
        else:
            self.curve = [self._score(0, None)]

    def run(self, on_epoch: Callable[[Epoch], None]) -> list[Epoch]:
        """Train until the last epoch, whose weights stay in the network; return the curve. Epoch 0 is before training.

        The learning rate ends at zero, so the last epoch is one of the best without being chosen. The epoch that is
        best on val would be best by chance as well, and val could not judge it any more.
        """
        while self.curve[-1].epoch < self._settings.epochs:
            number = self.curve[-1].epoch + 1
            self.curve.append(self._score(number, self.train_epoch(number)))
            self._checkpoint.write(self._arrays())
            on_epoch(self.curve[-1])
        return self.curve

    def train_epoch(self, epoch: int) -> float:
        """Visit every training image once, in epoch 1, 2, ..., and return the mean loss."""
        batches, settings, loss = self._batches(epoch), self._settings, 0.0
        for number, (chosen, inputs) in enumerate(zip(batches, self._train.inputs(batches, epoch), strict=True)):
            share = _schedule(epoch - 1 + number / len(batches), settings.epochs)
            targets = self._targets[self._train.class_indices[chosen]]
            loss += self._trainer.step(inputs, targets, settings.learning_rate * share) * len(chosen)
        return loss / len(self._train)

    def seconds(self) -> float:
        """Return about how long `run` will take: a few steps are timed, and taken back."""
        state, ends = self._trainer.state(), []
        batches = self._batches(1)[: _TIMED_STEPS + 1]
        for chosen, inputs in zip(batches, self._train.inputs(batches, 1), strict=True):
            self._trainer.step(inputs, self._targets[self._train.class_indices[chosen]], 0.0)
            ends.append(time.perf_counter())
        self._trainer.restore(state)
        # The first step also builds the graph; where there is no other one, that is all there is to time.
        per_step = float(np.median(np.diff(ends))) if len(ends) > 1 else 0.0
        start = time.perf_counter()
        self._trainer.predict(Images(self._val.inputs, self._val.class_indices[:VAL_BATCH]))
        per_val_image = (time.perf_counter() - start) / min(VAL_BATCH, len(self._val))
        return self._settings.epochs * (len(self._batches(1)) * per_step + len(self._val) * per_val_image)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """Return the positions of each step's images; within a batch in the order of the store, read fastest."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._train))
        return [np.sort(batch) for batch in np.split(order, range(BATCH_SIZE, len(order), BATCH_SIZE))]

    def _score(self, number: int, train_loss: float | None) -> Epoch:
        """Score the network on val; a loss or a weight that is not finite ends the training."""
        epoch = Epoch(number, train_loss, score(self._val.class_indices, self._trainer.predict(self._val)))
        losses = [train_loss or 0.0, epoch.val.log_loss if len(self._val) else 0.0]
        wrong = self._trainer.not_finite()
        if wrong or not np.isfinite(losses).all():
            layers = f"the weights {some(wrong, 3)}" if wrong else "the loss, though no weight"
            raise RegraftError(
                f"Fine-tuning came to numbers that are not finite in epoch {number}: {layers}. Nothing of it is kept. "
                f"Lower fine_tune.learning_rate in params.yaml (it is {self._settings.learning_rate:g} here). If it is "
                "epoch 0, or the rate is as small as the default, the backbone's weights or the stored activations are "
                "at fault: choose another backbone, or remove the folder paths.store, and run again."
            )
        return epoch

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return the contents of a checkpoint."""
        rows = [(epoch.train_loss or 0.0, *astuple(epoch.val)) for epoch in self.curve]
        return {
            "curve": np.array(rows),  # float64 keeps every bit
            **{f"state{number}": value for number, value in enumerate(self._trainer.state())},
        }

    def _resume(self, arrays: dict[str, np.ndarray]) -> None:
        self.curve = [
            Epoch(number, loss if number else None, Score(*figures))
            for number, (loss, *figures) in enumerate(arrays["curve"].tolist())
        ]
        self._trainer.restore([value for name, value in arrays.items() if name.startswith("state")])  # as written


def _schedule(epochs_done: float, epochs: int) -> float:
    """Return the learning rate as a share of its peak.

    A tenth of the steps of linear warm-up, so that the first ones of a fresh optimizer do not shake pretrained weights;
    then a cosine to zero (Loshchilov & Hutter, "SGDR", 2017, equation 5, without restarts).
    """
    done = epochs_done / epochs
    return done / _WARM_UP if done < _WARM_UP else (1 + cos(pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
