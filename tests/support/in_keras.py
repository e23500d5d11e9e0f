"""The optimizer and the loss of Regraft's own training loops, as Keras has them: what they are compared with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def compile_classifier(
    model: "keras.Model", *, learning_rate: float, weight_decay: float, label_smoothing: float
) -> None:
    """Compile for cross-entropy with AdamW; biases and BatchNorm are not decayed."""
    import keras

    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        jit_compile=False,  # XLA makes convolutions on the CPU many times slower
    )
