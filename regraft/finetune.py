"""Fine-tuning: the top of the backbone is trained together with the head, starting from the cached activations."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones import Backbone
from regraft.backbones.cuts import check_top
from regraft.config import FineTune
from regraft.dataset import Dataset
from regraft.metrics import Score, score
from regraft.networks import Epoch, batches_in_order, batches_of, compile_classifier, train
from regraft.store import Namespace
from regraft.views import Views

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What fine-tuning came to."""

    curve: list[Epoch]  # epoch 0 is the head alone; empty where fine-tuning was off
    best: Epoch | None

    @property
    def is_kept(self) -> bool:
        """Whether the fine-tuned network is better on val than the head alone; if not, its weights are not used."""
        return self.best is not None and self.best.val.is_better_than(self.curve[0].val)

    def as_report(self) -> dict[str, Any]:
        """Return reports/fine_tune.json."""
        if self.best is None:
            return {"is_kept": False}
        head_alone = asdict(self.curve[0].val)
        return {
            "is_kept": self.is_kept,
            **self.best.as_report(epochs_run=self.curve[-1].epoch),
            "head_alone": head_alone,
        }


NOT_FINE_TUNED = FineTuned([], None)


def join(backbone: Backbone, head: "keras.Model") -> "keras.Model":
    """Return backbone and head as one flat model: prepared float32 RGB 0 to 255 in, probabilities out."""
    import keras

    network = backbone.build()
    output = network.output
    for layer in head.layers:
        output = layer(output)
    return keras.Model(network.input, output, name=backbone.name)


def fine_tune(
    model: "keras.Model",
    cut: str,
    dataset: Dataset,
    activations: Namespace,
    views: Views,
    settings: FineTune,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], None],
) -> FineTuned:
    """Train everything above the cut of `model` in place and leave the weights that are best on val in it.

    BatchNorm stays in inference mode and its scale and shift stay frozen: statistics of small batches would destroy
    features that were learnt on a million images.

    Args:
        model: from `join`.
        cut: name of the layer whose activations are cached.
        dataset: its train images are trained on, its val images choose the epoch.
        activations: holds both.
        views: of each train image; an epoch visits every image once, in the next of its views.
        settings: the section `fine_tune` of params.yaml.
        seed: of dropout and of the order of images.
        on_epoch: called after each epoch.

    Raises:
        InvalidParams: above the cut there is nothing but the head.
    """
    import keras

    check_top(model, cut)
    top = keras.Model(model.get_layer(cut).output, model.output, name="top")
    for layer in top.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    train_set, val_set = dataset.of("train"), dataset.of("val")
    steps = -(-len(train_set) // settings.batch_size)
    # One epoch of warm-up, so that the first steps of a fresh optimizer do not shake pretrained weights.
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, steps * (settings.epochs - 1)),
        warmup_target=settings.learning_rate,
        warmup_steps=steps,
    )
    compile_classifier(
        top, learning_rate=schedule, weight_decay=settings.weight_decay, label_smoothing=settings.label_smoothing
    )
    batches = batches_of(
        _loader(train_set, activations, views, seed),
        train_set.rows.class_index.to_numpy(),
        num_classes=len(dataset.class_names),
        batch_size=settings.batch_size,
        seed=seed,
    )
    val_batches = batches_in_order(_loader(val_set, activations, replace(views, count=0), seed), len(val_set))
    curve, best = train(
        top,
        batches,
        lambda: score(val_set.rows.class_index.to_numpy(), top.predict(val_batches, verbose=0)),
        epochs=settings.epochs,
        patience=settings.epochs,
        is_better=Score.is_better_than,
        on_epoch=on_epoch,
    )
    return FineTuned(curve, best)


def _loader(dataset: Dataset, activations: Namespace, views: Views, seed: int) -> Callable[..., np.ndarray]:
    """Return a function from positions (and the epoch's number) to activations, float32.

    Each image starts at a view of its own, so an epoch is a mix of all views, and takes the next one in each epoch, so
    all of them are seen equally often.
    """
    digests = dataset.rows.digest.tolist()
    first = np.random.default_rng(seed).integers(views.count + 1, size=len(digests))

    def load(positions: np.ndarray, epoch: int = 0) -> np.ndarray:
        chosen = (first[positions] + epoch) % (views.count + 1)
        keys = [views.key(digests[position], int(view)) for position, view in zip(positions, chosen, strict=True)]
        return activations.read(keys).astype(np.float32)

    return load
