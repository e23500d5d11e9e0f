"""Results as CSV files, which DVC's plots and the report draw: learning curves, predictions, the confusion matrix."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regraft.files import replacing
from regraft.photos.dataset import Dataset

if TYPE_CHECKING:
    from regraft.training.keras_models import Epoch

_CURVE = ["epoch", "train_loss", "val_log_loss", "val_accuracy"]


def write_curve(path: Path, curve: "list[Epoch]") -> None:
    """Write a learning curve, a row per epoch; a phase that was off has none."""
    _write(path, pd.DataFrame([epoch.as_row() for epoch in curve], columns=_CURVE))


def write_predictions(path: Path, test: Dataset, probabilities: np.ndarray) -> None:
    """Write what the model said of each image, ordered by path: path, actual, predicted, confidence.

    Args:
        path: of the CSV file.
        test: the images.
        probabilities: shape (n, num_classes), in the order of `test`.
    """
    table = pd.DataFrame(
        {
            "path": test.rows.path,
            "actual": test.rows.class_name,
            "predicted": [test.class_names[index] for index in probabilities.argmax(axis=1)],
            "confidence": probabilities.max(axis=1).round(4),
        }
    )
    _write(path, table.sort_values("path"))


def write_confusion(path: Path, test: Dataset, probabilities: np.ndarray) -> None:
    """Write the confusion matrix: a row per true class, a column per predicted one; arguments as above."""
    from sklearn.metrics import confusion_matrix

    names = test.class_names
    matrix = confusion_matrix(test.rows.class_index, probabilities.argmax(axis=1), labels=range(len(names)))
    table = pd.DataFrame(matrix, columns=names)
    table.insert(0, "actual", names, allow_duplicates=True)
    _write(path, table)


def read_table(path: Path, *text: str) -> pd.DataFrame:
    """Return what one of these functions wrote; the columns `text` are names, also where they are NA or 007."""
    # A carriage return within a name is no end of a line.
    return pd.read_csv(
        path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values={"train_loss": [""]}, lineterminator="\n"
    )


def _write(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
