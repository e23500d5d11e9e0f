"""What fine-tuning does where there are GPUs; without one nothing here changes anything.

This was never run on a GPU. `tests/regraft/training/test_devices.py` trains on two logical CPU devices instead, and
`test_fused_batchnorm.py` computes in bfloat16 on a CPU.
"""

from typing import Any


def strategy() -> Any:
    """Return TensorFlow's way of using the devices: a copy of the network on each GPU where there are several.

    Batches are split between them and gradients added up, so a step is the step of the whole batch.
    """
    import tensorflow as tf

    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def compute_dtype() -> str:
    """Return the type that convolutions compute in: bfloat16 on a GPU, where it is several times as fast.

    Weights, sums over batches and the optimizer stay in float32. bfloat16 has the range of float32, so the loss need
    not be scaled as with float16 (Kalamkar et al., "A study of BFLOAT16 for deep learning training", 2019).
    """
    import tensorflow as tf

    return "bfloat16" if tf.config.list_physical_devices("GPU") else "float32"
