"""Random weights with which a network of any depth computes numbers of ordinary size."""

from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones import preprocessing

if TYPE_CHECKING:
    import keras


def randomise(model: "keras.Model") -> None:
    """Give a network the same random kernels in every process, and leave everything else as it was built.

    A kernel is normal with variance 2 / fan-in (He et al. 2015), which keeps the size of values behind a ReLU. Behind
    swish and gates they would vanish, and in fifty residual blocks leave float16, in which they are stored. So the
    layers are run one after the other on one picture, and each kernel is scaled until its outputs are of about size
    one; the scale is a power of two, so that the last digits of a sum, which differ between machines, change nothing.

    Source of the second step: Mishkin and Matas 2016, "All you need is a good init".
    """
    random = np.random.default_rng(0)
    picture = random.uniform(0, 255, (1, *model.input_shape[1:])).astype(np.float32)
    is_drawn: set[int] = set()

    def drawn(layer: Any) -> Any:
        kernels = [variable for variable in getattr(layer, "weights", []) if len(variable.shape) > 1]
        if not kernels or layer.name == preprocessing.NAME or id(layer) in is_drawn:
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
