"""What is done to pixels before the first layer of a network, as a layer of the network itself.

Weights only work with the preprocessing that they were trained with, and another one costs accuracy in silence. As a
layer it is saved, converted and shipped with the network: whoever runs it gives RGB values from 0 to 255.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

NAME = "preprocessing"  # of the layer
MODES = {
    "none": "RGB 0 to 255 as they are",
    "tf": "x / 127.5 - 1",
    "torch": "(x / 255 - mean) / standard deviation of ImageNet",
    "caffe": "blue, green, red, less the mean of ImageNet",
    "lite": "(x - 127) / 128",
}
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of red, green, blue, 0 to 1
_CAFFE_MEAN = np.array([103.939, 116.779, 123.68], np.float32)  # of blue, green, red, 0 to 255


def preprocessed_input(image_size: int, mode: str) -> tuple["keras.KerasTensor", "keras.KerasTensor"]:
    """Return the input of a network and what its first layer is given.

    Args:
        image_size: side in pixels.
        mode: one of MODES.

    Returns:
        `image`: float32, shape (n, image_size, image_size, 3), RGB 0 to 255; and the same after preprocessing.

    Source: tf, torch and caffe are the modes of `keras.applications.imagenet_utils.preprocess_input`.
    """
    import keras

    image = keras.Input((image_size, image_size, 3), name="image")
    return image, image if mode == "none" else _layer(mode)(image)


def _layer(mode: str) -> "keras.Layer":
    from keras.layers import Conv2D, Rescaling

    if mode == "tf":
        return Rescaling(1 / 127.5, offset=-1, name=NAME)
    if mode == "lite":
        return Rescaling(1 / 128, offset=-127 / 128, name=NAME)
    if mode == "torch":
        return Rescaling((1 / (255 * _DEVIATION)).tolist(), offset=(-_MEAN / _DEVIATION).tolist(), name=NAME)
    # A convolution by one pixel swaps the colours exactly: sums of one value and two zeros.
    swap = Conv2D(3, 1, trainable=False, name=NAME)
    swap.build((None, None, None, 3))
    swap.set_weights([np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3), -_CAFFE_MEAN])
    return swap
