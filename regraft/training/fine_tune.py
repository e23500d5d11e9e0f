"""Fine-tuning: the top of the backbone, or all of it, is trained together with the head."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones import preprocessing
from regraft.backbones.catalogue import Backbone
from regraft.backbones.cut_points import check_top, cut_points
from regraft.config import ClassWeight, FineTune
from regraft.errors import InvalidParams
from regraft.files import sha256_of
from regraft.photos.dataset import Dataset, read_photo
from regraft.photos.images import in_threads
from regraft.photos.views import Views
from regraft.provenance import provenance_of
from regraft.store.namespace import Namespace
from regraft.training.checkpoints import Checkpoint
from regraft.training.class_weights import prior_of
from regraft.training.keras_models import Epoch
from regraft.training.metrics import PairedTest, mcnemar_test
from regraft.training.trainer import Images, Inputs, Trainer, Training

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What fine-tuning came to."""

    settings: FineTune
    is_kept: bool  # whether the fine-tuned network is used; if not, the head on the backbone as it was
    reason: str  # why, in words
    curve: list[Epoch]  # epoch 0 is the head alone; empty where nothing was trained
    best: Epoch | None = None
    test: PairedTest | None = None  # of the best epoch against the head alone, on the val images

    def as_report(self) -> dict[str, Any]:
        """Return reports/fine_tune.json."""
        whole = "all" if self.settings.layers == "all" else "top"
        report = {
            "mode": self.settings.mode,
            "layers": self.settings.layers,
            "is_kept": self.is_kept,
            "trained": whole if self.is_kept else "head",
            "reason": self.reason,
        }
        if self.best is None or self.test is None:
            return report
        return {
            **report,
            **self.best.as_report(epochs_run=self.curve[-1].epoch),
            "head_alone": asdict(self.curve[0].val),
            "mcnemar": asdict(self.test),
        }


def switched_off(settings: FineTune) -> FineTuned:
    """Return what comes of fine-tuning where `mode` is off."""
    return FineTuned(settings, False, "Fine-tuning is off (fine_tune.mode in params.yaml).", [])


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
    inputs_of: Callable[[Dataset], Inputs],
    settings: FineTune,
    *,
    class_weight: ClassWeight,
    seed: int,
    checkpoint: Checkpoint,
    on_epoch: Callable[[Epoch], None],
) -> FineTuned:
    """Train a part of `model` in place and leave the weights that are best on val in it.

    BatchNorm stays in inference mode and its scale and shift stay frozen: statistics of small batches would destroy
    features that were learnt on a million images.

    Args:
        model: from `join`.
        cut: name of the layer whose activations are cached.
        dataset: its train images are trained on, its val images choose the epoch and whether the result is used.
        inputs_of: `cached_activations` or, where all layers are trained, `live_pixels`.
        settings: the section `fine_tune` of params.yaml.
        class_weight: what is done for rare classes, as for the head.
        seed: of the order of images; dropout has its own state.
        checkpoint: of this training.
        on_epoch: called after each epoch.

    Raises:
        InvalidParams: `settings.layers` names no layer that could be the last frozen one.
    """
    classes = dataset.of("train").rows.class_index.to_numpy()
    trainer = start_trainer(model, cut, settings, prior_of(class_weight, classes, len(dataset.class_names)))
    train, val = (
        Images(inputs_of(part), part.rows.class_index.to_numpy()) for part in (dataset.of("train"), dataset.of("val"))
    )
    training = Training(
        trainer,
        train,
        val,
        len(dataset.class_names),
        settings,
        class_weight=class_weight,
        seed=seed,
        checkpoint=checkpoint,
    )
    if settings.mode == "auto" and (reason := _why_not_to_train(training, val, settings)):
        return FineTuned(settings, False, reason, [])
    trained = training.run(on_epoch)
    test = mcnemar_test(trained.before == val.class_indices, trained.after == val.class_indices)
    is_kept, reason = _judge(trained.curve[0], trained.best, test, settings)
    return FineTuned(settings, is_kept, reason, trained.curve, trained.best, test)


def start_trainer(model: "keras.Model", cut: str, settings: FineTune, prior: np.ndarray | None = None) -> Trainer:
    """Return what trains those layers of `model` that the settings say; arguments and errors as of `fine_tune`."""
    network = choose_layers(model, cut, settings.layers)
    dtype = "uint8" if settings.layers == "all" else "float16"
    rates = learning_rates(network, settings.layer_decay)
    return Trainer(network, rates, weight_decay=settings.weight_decay, dtype=dtype, prior=prior)


def choose_layers(model: "keras.Model", cut: str, layers: str) -> "keras.Model":
    """Make those layers trainable that are to be trained, and return the part of the network that is run for it.

    Args:
        model: from `join`.
        cut: name of the layer whose activations are cached.
        layers: `all`; `top`, everything that comes after the cut; or the name of a layer, everything that comes after
            that one. It is the cut or lies above it.

    Returns:
        `model` for `all`, else what lies above the cut: it takes activations.

    Raises:
        InvalidParams: above the cut there is nothing but the head, there is no such layer, or nothing that could be
            trained comes after it.
    """
    import keras

    network, chosen = model, set(model.layers)
    if layers != "all":
        check_top(model, cut)
        network = keras.Model(model.get_layer(cut).output, model.output, name="top")
        everything = set(network.layers)
        after = {layer.name: _layers_after(network, layer.name) for layer in network.layers[1:]}
        choices = {"top": everything, cut: everything, **after}
        possible = [name for name, following in choices.items() if any(map(_is_trained, following))]
        if layers not in possible:
            raise InvalidParams(
                f"fine_tune.layers: expected all, top, or the name of a layer at or above the cut with something to "
                f"train after it: {', '.join(possible[1:])}. Received: '{layers}'."
            )
        chosen = choices[layers]
    for layer in model.layers:
        layer.trainable = layer in chosen and _is_trained(layer)
    return network


def _is_trained(layer: "keras.Layer") -> bool:
    """Whether there is something in a layer that fine-tuning changes."""
    import keras

    is_fixed = isinstance(layer, keras.layers.BatchNormalization) or layer.name == preprocessing.NAME
    return bool(layer.weights) and not is_fixed


def _layers_after(network: "keras.Model", name: str) -> set["keras.Layer"]:
    """Return the layers whose output depends on that of the layer `name`; none if there is no such layer."""
    reached: set[int] = set()
    after = set()
    for depth in sorted(network._nodes_by_depth, reverse=True):
        for node in network._nodes_by_depth[depth]:
            depends = any(id(tensor) in reached for tensor in node.input_tensors)
            if depends:
                after.add(node.operation)
            if depends or node.operation.name == name:
                reached |= {id(tensor) for tensor in node.outputs}
    return after


def learning_rates(network: "keras.Model", decay: float) -> dict[str, float]:
    """Return the learning rate of each trainable variable as a multiple of that of the head, by the variable's path.

    It falls by the factor `decay` from block to block towards the input (Clark et al., "ELECTRA", 2020, appendix A).
    A block is what lies between two neighbouring cut points and has something to train: a residual block or an
    Inception module as a whole, a convolution where one follows the other.
    """
    points = {point.name for point in cut_points(network)}
    rates, depth, is_begun = {}, 0, False
    for layer in reversed(network.layers):
        if layer.name in points and is_begun:
            depth, is_begun = depth + 1, False
        for variable in layer.trainable_variables:
            rates[variable.path] = decay**depth
            is_begun = True
    return rates


def cached_activations(dataset: Dataset, activations: Namespace, views: Views, *, seed: int) -> Inputs:
    """Return what reads the activations of a split, float16, a few batches ahead.

    Each image starts at a view of its own, so an epoch is a mix of all views, and takes the next one in each epoch, so
    all of them are seen equally often. Val images have one view only.
    """
    digests, splits = dataset.rows.digest.tolist(), dataset.rows.split.tolist()
    counts = np.array([len(views.of(split)) for split in splits])
    first = np.random.default_rng(seed).integers(views.count + 1, size=len(digests))

    def read(positions: np.ndarray, epoch: int) -> np.ndarray:
        chosen = (first[positions] + epoch) % counts[positions]
        keys = [views.key(digests[position], int(view)) for position, view in zip(positions, chosen, strict=True)]
        return activations.read(keys)

    return lambda batches, epoch: in_threads(lambda positions: read(positions, epoch), batches, workers=1)


def live_pixels(dataset: Dataset, raw: Path, views: Views, *, workers: int) -> Inputs:
    """Return what decodes the photos of a split and draws them, uint8, a few dozen ahead.

    In epoch n a training image is its augmented view n, so every epoch has new ones, and the same ones whenever it is
    run; any other image is its centre square.
    """
    photos = dataset.photos()

    def read(batches: Iterable[np.ndarray], epoch: int) -> Iterator[np.ndarray]:
        batches = list(batches)

        def draw(position: int) -> np.ndarray:
            photo = photos[position]
            rgb = read_photo(raw, photo, shorter_side=views.shorter_side)
            return views.draw(rgb, photo.digest, [epoch if photo.split == "train" else 0])[0]

        drawn = in_threads(draw, (int(position) for batch in batches for position in batch), workers=workers)
        for batch in batches:
            yield np.stack(list(islice(drawn, len(batch))))

    return read


def facts_of(
    backbone: Backbone, views: Views, settings: FineTune, class_weight: ClassWeight, *, files: list[Path], seed: int
) -> dict[str, Any]:
    """Return what determines a training, for its checkpoint; cached activations come on top.

    Args:
        backbone: the network that is trained.
        views: of the images.
        settings: the section `fine_tune` of params.yaml.
        class_weight: what is done for rare classes.
        files: that it starts from: head and data set.
        seed: of the training.
    """
    return {
        "backbone": [backbone.name, backbone.weights_digest, backbone.image_size, backbone.cut],
        "views": asdict(views),
        "settings": [settings.model_dump(), class_weight],
        "files": [sha256_of(file) for file in files],
        "seed": seed,
        "provenance": provenance_of(__name__).digest,
    }


def _why_not_to_train(training: Training, val: Images, settings: FineTune) -> str | None:
    """Return in words why `auto` does not train, or None if it does."""
    if training.is_begun:
        return None
    errors, needed = int((training.before != val.class_indices).sum()), ceil(log2(1 / settings.significance))
    if errors < needed:
        return (
            f"Not fine-tuned: the head is wrong on {errors} of {len(val)} val photos. Even if all of them came right, "
            f"that could be chance: at fine_tune.significance {settings.significance:g} it takes {needed}."
        )
    minutes = training.seconds() / 60
    if minutes > settings.max_minutes:
        return (
            f"Not fine-tuned: {settings.epochs} epochs would take about {minutes:.1f} minutes here, and "
            f"fine_tune.max_minutes is {settings.max_minutes:g}."
        )
    return None


def _judge(head_alone: Epoch, best: Epoch, test: PairedTest, settings: FineTune) -> tuple[bool, str]:
    """Return whether the fine-tuned network is used, and why.

    Being right more often on val is not enough: with a few hundred photos a worse network often is, and one that was
    fine-tuned on few photos then costs test accuracy. The test is somewhat in favour of the fine-tuned network, because
    the same images chose its epoch.
    """
    before, after = (
        f"{epoch.val.accuracy:.3f} (cross-entropy {epoch.val.log_loss:.3f})" for epoch in (head_alone, best)
    )
    if best is head_alone:
        return False, f"The fine-tuned network is not used: no epoch was better on val than the head alone, {before}."
    is_kept = test.p <= settings.significance
    return is_kept, (
        f"The fine-tuned network is {'' if is_kept else 'not '}used: val accuracy {after} in epoch {best.epoch}, "
        f"{before} of the head alone; {test.only_after} val photos are right only with it, {test.only_before} only "
        f"without it (exact one-sided McNemar test: p = {test.p:.2g}); fine_tune.significance is "
        f"{settings.significance:g}."
    )
