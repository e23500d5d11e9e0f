"""Any functional Keras model as a backbone: flat, with preprocessing in front and pooled features at the end."""

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones.preprocessing import NAME, preprocessed_input
from regraft.errors import InvalidWeights

if TYPE_CHECKING:
    import keras

_CLASSIFIER = {"Dense", "Dropout", "Activation", "Softmax", "ReLU"}  # what is taken off the end of a classifier
_MOST_VALUES = 1024  # of an output per pixel of the image; VGG has 64


def as_backbone(model: "keras.Model", image_size: int, mode: str, name: str) -> "keras.Model":
    """Return a flat copy of a model: float32 RGB 0 to 255 in, pooled features out.

    Nested models are taken apart, so that the network can be cut inside them. Layers that Keras numbered by itself are
    numbered anew in the order of the network: a cut has the same name in every process. A sum of two tensors becomes an
    `Add` layer, because only layers can be cut after. Everything computes in float32.

    Args:
        model: functional or sequential, with one image as input and one output: feature maps (they are averaged), or
            features, or a classifier, which is cut back to what its dense layers take.
        image_size: side in pixels.
        mode: of the preprocessing in front, one of `preprocessing.MODES`.
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
    _check_outputs(backbone, image_size)
    copies.copy_weights()
    return backbone


def _check_outputs(backbone: Any, image_size: int) -> None:
    """Raise InvalidWeights if a layer makes so much of an image that no machine could run it."""
    import keras

    most = _MOST_VALUES * image_size**2
    for operation in backbone.operations:
        for node in operation._inbound_nodes:
            for tensor in keras.tree.flatten(node.output_tensors):
                if math.prod(side or 1 for side in tensor.shape) > most:
                    raise InvalidWeights(
                        f"the layer {operation.name} of {backbone.name} makes {tensor.shape}. Expected "
                        f"at most {_MOST_VALUES} values per pixel of the image."
                    )


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
        self._names = {"image", NAME, "features"}

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
    if len(output.shape) == 4 and output._keras_history.operation.name not in ("image", NAME):
        return layers.GlobalAveragePooling2D(name="features")(output)
    if len(output.shape) == 2:
        return layers.Identity(name="features")(output)
    raise InvalidWeights(
        f"{name} has no feature maps: without its dense layers its output has shape {output.shape}. Expected an image "
        f"network that ends in feature maps (n, height, width, channels), in pooled features, or in dense layers."
    )
