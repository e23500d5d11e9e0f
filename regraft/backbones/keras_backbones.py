"""Keras models as backbones: those of `keras.applications`, and a user's own .keras file.

Any functional model becomes one flat network with preprocessing in front and pooled features at the end. A .keras file
is read in Keras' safe mode, so it runs no code.
"""

import importlib.metadata
import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones.cut_points import PREPROCESSING, preprocessed_input
from regraft.core.errors import InvalidParams, InvalidWeights
from regraft.core.files import DAMAGE

if TYPE_CHECKING:
    import keras

SUFFIX = ".keras"
_CLASSIFIER = {"Dense", "Dropout", "Activation", "Softmax", "ReLU"}  # what is taken off the end of a classifier


@dataclass(frozen=True, slots=True)
class Family:
    """Facts of a module of `keras.applications` that its code does not have."""

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
            build = partial(_build_application, name)
            found[name] = Application(name, family, _SIDES.get(name, _USUAL_SIDE), build)
    return found


def download_digest() -> str:
    """Stands for the digest of weights that Keras downloads: it compares the file with a digest of its own."""
    return f"ImageNet weights of Keras {importlib.metadata.version('keras')}"


def _build_application(name: str, image_size: int, preprocessing: str, weights: Path | str | None) -> "keras.Model":
    """Return the network up to the pooled features.

    Weights are "imagenet", which Keras downloads once; a file that Keras saved of this model, with or without its
    classifier; or None, as Keras draws them. InvalidParams: images of this size are too small.
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
            f"network can be reached, or set backbone.weights to the path of a file that Keras saved (.weights.h5)."
        ) from None
    if isinstance(weights, Path):
        _load_weights(network, weights, name)
    return as_backbone(network, image_size, preprocessing, name)


def _load_weights(network: "keras.Model", path: Path, name: str) -> None:
    """Read a file of Keras; of a model with its classifier only the layers that the network has."""
    for variable in network.weights:  # Keras skips absent weights, at most with a warning
        if variable.dtype == "float32":
            variable.assign(np.full(variable.shape, np.nan))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix != ".h5":  # other names mean lists of further files
                raise ValueError("its name does not end in .h5")
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


def checked_path(name: str) -> Path:
    """Return the path that `backbone.name` gives.

    Raises:
        InvalidParams: it leaves the project's folder.
        InvalidWeights: there is no such file.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InvalidParams(
            f"backbone.name: expected a path inside the project folder, relative to it. Received: {name!r}."
        )
    if not Path(path).is_file():
        raise InvalidWeights(f"backbone.name: {name} does not exist. Expected a model that Keras saved as {SUFFIX}.")
    return Path(path)


def image_size_of(path: Path) -> int | None:
    """Return the side of the square images that a model takes, in pixels; None if it takes any size."""
    return _size(_load_file(path), path)


def build_from_file(path: Path, image_size: int, preprocessing: str, weights: Path | None) -> "keras.Model":
    """Return the model in a file up to its pooled features; `weights` is the same file.

    Raises:
        InvalidParams: the model takes images of another size.
        InvalidWeights: the file cannot be loaded without running code of its own, or is no image network.
    """
    model = _load_file(path)
    size = _size(model, path)
    if size not in (None, image_size):
        raise InvalidParams(
            f"backbone.image_size: {path} takes {size} pixels. Expected auto or {size}. Received: {image_size}."
        )
    return as_backbone(model, image_size, preprocessing, path.stem)


def _load_file(path: Path) -> "keras.Model":
    """Return the model in a .keras file; safe mode refuses Lambda layers and classes that Keras does not have."""
    import keras

    try:
        with warnings.catch_warnings():
            # Keras would go on with random weights.
            warnings.filterwarnings("error", message="Skipping nested container")
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (*DAMAGE, ImportError, UserWarning) as error:
        words = " ".join(str(error).split())[:300]
        raise InvalidWeights(
            f"backbone.name: {path} cannot be loaded ({words}). Expected a file saved by Keras 3 as {SUFFIX}, without "
            f"Lambda layers and classes of its own: a model file must not bring code."
        ) from None


def _size(model: "keras.Model", path: Path) -> int | None:
    shape = getattr(model, "input_shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 and shape[1] == shape[2]):
        raise InvalidWeights(f"{path} takes {shape}. Expected one input of square RGB images: (None, side, side, 3).")
    return shape[1]


def as_backbone(model: "keras.Model", image_size: int, mode: str, name: str) -> "keras.Model":
    """Return a flat copy of a model: float32 RGB 0 to 255 in, pooled features out.

    Nested models are taken apart, so that the network can be cut inside them. Layers that Keras numbered by itself are
    numbered anew in the order of the network: a cut has the same name in every process. A sum of two tensors becomes an
    `Add` layer, because only layers can be cut after. Everything computes in float32.

    Args:
        model: functional or sequential, with one image as input and one output: feature maps, which are averaged;
            features; or a classifier, whose dense layers are taken off.
        image_size: side in pixels.
        mode: of the preprocessing in front, one of `cut_points.MODES`.
        name: of the result.

    Raises:
        InvalidWeights: the model has other inputs or outputs, or cannot be taken apart.
    """
    import keras

    image, preprocessed = preprocessed_input(image_size, mode)
    copies = _Copies()
    output = copies.run(_functional(model, name), [preprocessed])
    if isinstance(output, list | tuple | dict):
        raise InvalidWeights(f"{name} has several outputs. Expected one: feature maps, features or probabilities.")
    features = _pooled(output, name)
    backbone = keras.Model(image, features, name=name)
    copies.copy_weights()
    return backbone


def _functional(model: "keras.Model", name: str) -> Any:
    """The graph of a model."""
    import keras

    if isinstance(model, keras.Sequential) and model.built:
        return model._functional
    if not hasattr(model, "_run_through_graph"):
        raise InvalidWeights(
            f"{name} is a {type(model).__name__}, whose layers cannot be told apart. Expected a functional or "
            f"sequential Keras model that was built before it was saved."
        )
    return model


class _Copies:
    """Fresh layers in place of a model's own, which keep their place in their own graph."""

    def __init__(self) -> None:
        self._fresh: dict[int, tuple[Any, Any]] = {}  # by the identity of the original: it and its copy
        self._names = {"image", PREPROCESSING, "features"}

    def run(self, graph: Any, inputs: Any) -> Any:
        """Apply copies of a graph's layers to other inputs."""
        return graph._run_through_graph(inputs, operation_fn=self._applied)

    def copy_weights(self) -> None:
        for original, copy in self._fresh.values():
            if getattr(copy, "weights", None):
                values = zip(original.get_weights(), copy.weights, strict=True)
                copy.set_weights([value.reshape(variable.shape) for value, variable in values])

    def _applied(self, operation: Any) -> Any:
        import keras

        if isinstance(operation, keras.Model):  # `training` and `mask` of the call are none of the copy's business
            return lambda inputs, **_: self.run(_functional(operation, operation.name), inputs)
        if id(operation) in self._fresh:  # a layer that is used twice
            return self._fresh[id(operation)][1]

        def apply_new(*args: Any, **kwargs: Any) -> Any:
            if _is_sum(operation, args):
                return keras.layers.Add(name=self._name(operation))(args)
            copy = self._copy(operation, args)
            self._fresh[id(operation)] = operation, copy
            return copy(*args, **kwargs)

        return apply_new

    def _copy(self, operation: Any, args: tuple[Any, ...]) -> Any:
        import keras

        config = operation.get_config() | {"name": self._name(operation)}
        if "dtype" in config:
            config["dtype"] = "float32"
        if type(operation).__name__ == "Normalization" and not operation.invert:
            # The same as a product and a sum: what it holds outside its weights would be no part of the ONNX graph.
            operation.finalize_state()
            mean, variance = (np.ravel(values) for values in (operation.mean, operation.variance))
            deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
            scale, offset = (1 / deviation).tolist(), (-mean / deviation).tolist()
            return keras.layers.Rescaling(scale, offset=offset, name=config["name"])
        if type(operation).__name__ == "Conv2D" and config["groups"] == args[0].shape[-1] > 1:
            # The same numbers in the same order; of convolutions in groups only this kind can be converted.
            taken = ("name", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias")
            multiplier = config["filters"] // config["groups"]
            return keras.layers.DepthwiseConv2D(depth_multiplier=multiplier, **{key: config[key] for key in taken})
        return type(operation).from_config(config)

    def _name(self, operation: Any) -> str:
        """The operation's name; without the number if Keras named it after its class."""
        stem = re.sub(r"_\d+$", "", operation.name)
        is_given = stem.replace("_", "") != type(operation).__name__.lower()
        base = name = operation.name if is_given else stem
        number = 0
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name


def _is_sum(operation: Any, args: tuple[Any, ...]) -> bool:
    import keras

    is_layer = isinstance(operation, keras.Layer)
    tensors = [arg for arg in args if isinstance(arg, keras.KerasTensor)]
    return not is_layer and type(operation).__name__ == "Add" and len(tensors) == 2 and args[0].shape == args[1].shape


def _pooled(output: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
    """The features that a model's output is made from, as a layer named `features`."""
    from keras import layers

    while len(output.shape) == 2:
        history: Any = output._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        kind = type(history.operation).__name__
        if node.is_input or (kind not in _CLASSIFIER and kind != "Flatten"):
            break
        output = node.input_tensors[0]
    if len(output.shape) == 4 and output._keras_history.operation.name not in ("image", PREPROCESSING):
        return layers.GlobalAveragePooling2D(name="features")(output)
    if len(output.shape) == 2:
        return layers.Identity(name="features")(output)
    raise InvalidWeights(
        f"{name} has no feature maps: without its dense layers its output has shape {output.shape}. Expected an image "
        f"network that ends in feature maps (n, height, width, channels), in pooled features, or in dense layers."
    )
