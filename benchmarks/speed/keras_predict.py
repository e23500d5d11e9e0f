"""A folder of photos through a .keras file, as the documentation of Keras has it.

    python -m benchmarks.speed.keras_predict MODEL.keras FOLDER ANSWERS.npz

`keras.utils.image_dataset_from_directory` reads (tf.data: parallel, prefetched), `keras.Model.predict` answers.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow prints a page about itself otherwise


def predict(path: Path, folder: Path, answers: Path) -> None:
    """Write the names of the photos, and the probabilities of each."""
    import keras
    import numpy as np

    model = keras.saving.load_model(path)
    side = model.input_shape[1]
    photos = keras.utils.image_dataset_from_directory(
        folder,
        labels=None,
        image_size=(side, side),
        batch_size=32,
        shuffle=False,
        crop_to_aspect_ratio=True,
        verbose=False,
    )
    probabilities = model.predict(photos.prefetch(2), verbose=0)
    np.savez(answers, names=[Path(name).name for name in photos.file_paths], probabilities=probabilities)


if __name__ == "__main__":
    predict(*map(Path, sys.argv[1:]))
