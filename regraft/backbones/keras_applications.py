"""The classification models of `keras.applications`, as they are in the Keras that is installed."""

import importlib.metadata
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones.as_backbone import as_backbone
from regraft.backbones.keras_archive import size_of_numbers
from regraft.errors import InvalidParams, InvalidWeights

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class Family:
    """What a module of `keras.applications` says of its models only in words."""

    preprocessing: str  # what its `preprocess_input` does; none where the network rescales pixels itself
    licence: str  # of the ImageNet weights that Keras downloads: what their authors' code is released under; see below


# Keras' own page of its applications names the origin of VGG's, ResNet's, DenseNet's and NASNet's weights with these
# licences; of the others it is that of the authors' repositories. The files themselves carry none.
_APACHE = "Apache-2.0 (Google)"
FAMILIES = {
    "convnext": Family("none", "MIT (Meta)"),
    "densenet": Family("torch", "BSD-3-Clause (Huang and Liu)"),
    "efficientnet": Family("none", _APACHE),
    "efficientnet_v2": Family("none", _APACHE),
    "inception_resnet_v2": Family("tf", _APACHE),
    "inception_v3": Family("tf", _APACHE),
    "mobilenet": Family("tf", _APACHE),
    "mobilenet_v2": Family("tf", _APACHE),
    "mobilenet_v3": Family("none", _APACHE),
    "nasnet": Family("tf", _APACHE),
    "resnet": Family("caffe", "MIT (Kaiming He)"),
    "resnet_v2": Family("tf", "MIT (Kaiming He)"),
    "vgg16": Family("caffe", "CC BY (VGG, Oxford)"),
    "vgg19": Family("caffe", "CC BY (VGG, Oxford)"),
    "xception": Family("tf", "MIT (Chollet)"),
}
_USUAL_SIDE = 224
_SIDES = {
    **dict.fromkeys(["InceptionV3", "InceptionResNetV2", "Xception"], 299),
    "NASNetLarge": 331,
    **{f"EfficientNetB{n}": side for n, side in enumerate((224, 240, 260, 300, 380, 456, 528, 600))},
    **{f"EfficientNetV2B{n}": side for n, side in enumerate((224, 240, 260, 300))},
    **{"EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480},
}
# What the published weights of EfficientNet B0 to B7 hold as variances of red, green and blue: see `_square_variances`.
_DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True, slots=True)
class Application:
    """One model of `keras.applications`."""

    name: str  # of its constructor
    family: str
    image_size: int  # side in pixels that it was pretrained at
    build: Any  # (image_size, preprocessing, weights) -> the network up to the pooled features


def applications() -> dict[str, Application]:
    """Return every model by its name; this imports Keras, which takes seconds."""
    import keras

    found = {}
    for name, constructor in vars(keras.applications).items():
        family = getattr(constructor, "__module__", "").rpartition(".")[2]
        if callable(constructor) and family in FAMILIES:
            build = partial(_build, name)
            found[name] = Application(name, family, _SIDES.get(name, _USUAL_SIDE), build)
    return found


def download_digest() -> str:
    """Stands for the digest of weights that Keras downloads: it compares the file with a digest of its own."""
    return f"ImageNet weights of Keras {importlib.metadata.version('keras')}"


def _build(name: str, image_size: int, preprocessing: str, weights: Path | str | None) -> "keras.Model":
    """Return the network up to the pooled features.

    Args:
        name: of the constructor.
        image_size: side in pixels.
        preprocessing: one of `preprocessing.MODES`.
        weights: "imagenet", which Keras downloads once into its own folder; a file that Keras saved, of this model with
            or without its classifier; None leaves the weights as Keras draws them.

    Raises:
        InvalidParams: images of this size are too small.
        InvalidWeights: the weights cannot be downloaded, or the file is not of this model.
    """
    import keras

    def construct(weights: str | None) -> "keras.Model":
        build = getattr(keras.applications, name)
        return build(include_top=False, weights=weights, input_shape=(image_size, image_size, 3), pooling="avg")

    try:
        network = construct("imagenet" if weights == "imagenet" else None)
    except ValueError as error:
        if "size must be" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise InvalidParams(f"backbone.image_size: {image_size} does not suit {name}: {reason}") from None
    except Exception as error:
        if not str(error).startswith("URL fetch failure"):  # which Keras raises as a bare Exception
            raise
        raise InvalidWeights(
            f"backbone.weights: the ImageNet weights of {name} cannot be downloaded: {error}. Run once where the "
            f"network can be reached (Keras keeps the file in its folder models), or set backbone.weights to the path "
            f"of a file that Keras saved elsewhere (.weights.h5 or .h5), or to null for random weights."
        ) from None
    if isinstance(weights, Path):
        _load(network, weights, name)
    return as_backbone(network, image_size, preprocessing, name)


def _load(network: "keras.Model", path: Path, name: str) -> None:
    """Read a file of Keras; of a model with its classifier only the layers that the network has."""
    for variable in network.weights:  # Keras leaves what it does not find as it was, at most with a warning
        if variable.dtype == "float32":
            variable.assign(np.full(variable.shape, np.nan))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix != ".h5":  # other names mean lists of further files
                raise ValueError("its name does not end in .h5")
            size_of_numbers(path)  # refuses what points to other files
            try:
                network.load_weights(path)
            except ValueError as error:
                if "Layer count mismatch" not in str(error):  # an old .h5 file counts the classifier's layers too
                    raise
                network.load_weights(path, by_name=True)
        absent = [variable.path for variable in network.weights if np.isnan(variable.numpy()).any()]
        if absent:
            raise ValueError(f"it has no {absent[0]}")
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidWeights(
            f"backbone.weights: {path} does not hold the weights of {name} ({reason}). Expected a file that Keras "
            f"saved of keras.applications.{name}: .weights.h5 from `save_weights`, or .h5 as Keras downloads it."
        ) from None
    _square_variances(network)


def _square_variances(network: "keras.Model") -> None:
    """Make a published file of EfficientNet B0 to B7 mean the same from a path as when Keras downloads it.

    The file holds standard deviations s where `Normalization` expects variances, so (x - mean) / sqrt(s) comes out.
    Keras adds a layer that divides by sqrt(s) once more, but only for the weights "imagenet".
    """
    for layer in network.layers:
        if type(layer).__name__ == "Normalization" and layer.weights:
            mean, variance, *count = layer.get_weights()
            if np.allclose(variance, _DEVIATIONS, atol=1e-4):
                layer.set_weights([mean, np.square(variance), *count])
                layer.finalize_state()
