"""The loop of fine-tuning: the learning rate's schedule, what val says after each epoch, going on after a kill."""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from math import cos, pi

import numpy as np

from regraft.core.config import ClassWeight, FineTune
from regraft.core.errors import RegraftError, some
from regraft.training.checkpoints import Checkpoint
from regraft.training.class_weights import weights_of
from regraft.training.inputs import Images, TrainingImages
from regraft.training.keras_models import Epoch
from regraft.training.metrics import Score, score
from regraft.training.trainer import VAL_BATCH, Trainer

_TIMED_STEPS = 3
_WARM_UP = 0.1  # share of all steps


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides a training beside the network and its images."""

    settings: FineTune
    class_weight: ClassWeight  # what is done for rare classes, as for the head
    seed: int  # of the order of images; dropout has its own state


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
        smoothing, num_classes = plan.settings.label_smoothing, images.num_classes
        self._targets = (np.eye(num_classes) * (1 - smoothing) + smoothing / num_classes).astype(np.float32)
        self._targets *= weights_of(plan.class_weight, images.train.class_indices, num_classes)[:, None]
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
        size = self._settings.batch_size
        return [np.sort(batch) for batch in np.split(order, range(size, len(order), size))]

    def _score(self, number: int, train_loss: float | None) -> Epoch:
        """Score the network on val; where something is no number, val could choose nothing, and nothing may be kept."""
        epoch = Epoch(number, train_loss, score(self._val.class_indices, self._trainer.predict(self._val)))
        losses = [train_loss or 0.0, epoch.val.log_loss if len(self._val) else 0.0]
        wrong = self._trainer.not_finite()
        if wrong or not np.isfinite(losses).all():
            layers = f"the weights {some(wrong, 3)}" if wrong else "the loss, though no weight"
            raise RegraftError(
                f"Fine-tuning came to numbers that are not finite in epoch {number}: {layers}. Nothing of it is kept. "
                f"Lower fine_tune.learning_rate in params.yaml (it is {self._settings.learning_rate:g} here). If it is "
                "epoch 0, or the rate is as small as the default, the backbone's weights or what the store has of "
                "photos are at fault: choose another backbone, or remove the folder paths.store, and run again."
            )
        return epoch

    def _arrays(self) -> dict[str, np.ndarray]:
        """What `_resume` needs."""
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
