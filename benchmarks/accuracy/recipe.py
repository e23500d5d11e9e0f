"""The classic recipe, as a process of its own: a frozen backbone and a new classifier, trained on photos by epochs.

    python -m benchmarks.accuracy.recipe PROJECT [--epochs 10] [--tune] [--predictions FILE]

PROJECT holds params.yaml and data/raw/{train,val,test}/<class>/. It is what the documentation of `keras.applications`
gives for a new set of classes, before anything is unfrozen: global average pooling (the backbone ends with it), a layer
of 1,024 ReLU units, softmax, cross-entropy, RMSprop. The photos come from `keras.utils.image_dataset_from_directory`,
prefetched; they are not kept in memory between epochs, where each would take 600 kB. With --tune its second part
follows: the layers above `backbone.cut`, BatchNorm aside, for ten epochs with Adam at 1e-5. FILE takes what the network
says of the test photos, as .npz. The last line is a JSON object.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.backbones.catalogue import choose_backbone
from regraft.core.params_file import load_params

if TYPE_CHECKING:
    import keras

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow prints a page about itself otherwise


_TUNING_EPOCHS = 10


def train(project: Path, epochs: int, *, tune: bool, predictions: Path | None = None) -> dict[str, float]:
    """Train on train, with val after every epoch; return the accuracy on test and seconds."""
    import keras
    import numpy as np

    start = time.perf_counter()

    params = load_params(project / "params.yaml")
    keras.utils.set_random_seed(params.seed)
    frozen = choose_backbone(params.backbone)
    raw = project / params.paths.raw
    read = partial(
        keras.utils.image_dataset_from_directory,
        image_size=(frozen.image_size, frozen.image_size),
        crop_to_aspect_ratio=True,
        verbose=False,
    )
    splits = {split: read(raw / split, shuffle=split == "train") for split in ("train", "val", "test")}
    backbone = frozen.build()
    layers = keras.layers.Dense(1024, activation="relu")(backbone.output)
    layers = keras.layers.Dense(len(splits["train"].class_names), activation="softmax")(layers)
    model = keras.Model(backbone.input, layers)
    model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    photos = {split: dataset.prefetch(2) for split, dataset in splits.items()}
    ends = []
    note_end = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    ends.append(time.perf_counter())
    model.fit(photos["train"], validation_data=photos["val"], epochs=epochs, callbacks=[note_end], verbose=2)
    if tune:
        _unfreeze(model, frozen.cut)
        model.compile(keras.optimizers.Adam(1e-5), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(
            photos["train"], validation_data=photos["val"], epochs=_TUNING_EPOCHS, callbacks=[note_end], verbose=2
        )
    seconds = time.perf_counter() - start
    if predictions:
        stems = [Path(path).stem for path in splits["test"].file_paths]
        np.savez(predictions, digests=stems, probabilities=model.predict(photos["test"], verbose=0))
    _, accuracy = model.evaluate(photos["test"], verbose=0)
    return {"test_accuracy": accuracy, "last_epoch_seconds": ends[-1] - ends[-2], "seconds": seconds}


def _unfreeze(model: "keras.Model", cut: str) -> None:
    """Let the layers above the cut learn; BatchNorm stays as it was learnt on a million images."""
    import keras

    below = {layer.name for layer in keras.Model(model.input, model.get_layer(cut).output).layers}
    for layer in model.layers:
        layer.trainable = layer.name not in below and not isinstance(layer, keras.layers.BatchNormalization)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The classic recipe in Keras.")
    parser.add_argument("project", type=Path, help="a folder with params.yaml and data/raw/{train,val,test}/<class>/")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--tune", action="store_true", help="then train the layers above the cut as well")
    parser.add_argument("--predictions", type=Path, help="takes what the network says of the test photos, as .npz")
    arguments = parser.parse_args()
    result = train(arguments.project, arguments.epochs, tune=arguments.tune, predictions=arguments.predictions)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
