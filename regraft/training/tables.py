"""Results as CSV files, which DVC's plots and the report draw: learning curves, predictions, the confusion matrix."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regraft.core.csv_files import read_csv, write_csv
from regraft.core.files import reading
from regraft.photos.dataset import Dataset

if TYPE_CHECKING:
    from regraft.training.keras_models import Epoch

_CURVE = {"epoch": int, "train_loss": float, "val_log_loss": float, "val_accuracy": float}
_CURVE |= {"val_balanced_log_loss": float, "val_macro_recall": float}
_PREDICTIONS = {"path": str, "actual": str, "predicted": str, "confidence": float}


def write_curve(path: Path, curve: "list[Epoch]") -> None:
    """Write a learning curve, a row per epoch; a phase that was off has none."""
    write_csv(path, pd.DataFrame([epoch.as_row() for epoch in curve], columns=list(_CURVE)))


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
    write_csv(path, table.sort_values("path"))


def write_confusion(path: Path, test: Dataset, probabilities: np.ndarray) -> None:
    """Write the confusion matrix: a row per true class, a column per predicted one; arguments as above."""
    from sklearn.metrics import confusion_matrix

    names = test.class_names
    matrix = confusion_matrix(test.rows.class_index, probabilities.argmax(axis=1), labels=range(len(names)))
    table = pd.DataFrame(matrix, columns=names)
    table.insert(0, "actual", names, allow_duplicates=True)
    write_csv(path, table)


def read_curve(path: Path) -> pd.DataFrame:
    """Return what `write_curve` wrote."""
    return read_csv(path, _CURVE)


def read_predictions(path: Path) -> pd.DataFrame:
    """Return what `write_predictions` wrote."""
    return read_csv(path, _PREDICTIONS)


def read_confusion(path: Path) -> pd.DataFrame:
    """Return what `write_confusion` wrote: the names of the true classes as the index, a column per predicted one."""
    table = read_csv(path, {"actual": str}, others=int)
    with reading(path, "a row and a column per class"):
        if table.shape[1] != len(table) + 1:
            raise ValueError(f"{len(table)} rows and {table.shape[1] - 1} columns")
    return table.set_index("actual")
