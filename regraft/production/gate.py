"""Whether a new model may take the place of the one in production."""

from dataclasses import dataclass

import numpy as np

from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided, and the figures that it decided on."""

    is_accepted: bool
    words: str
    challenger_accuracy: float
    champion_accuracy: float | None  # of the model in production on the same photos; None where there is none


def accuracy_of(classifier: OnnxClassifier, test: Dataset, probabilities: np.ndarray) -> float:
    """Return the share of test images whose class the model names.

    Names are compared, not indices: the model in production may know other classes than today's data has.
    """
    predicted = np.array(classifier.class_names)[probabilities.argmax(axis=1)]
    return float(np.mean(predicted == test.rows.class_name.to_numpy()))


def judge(challenger_accuracy: float, champion_accuracy: float | None, *, images: int, margin: float) -> Verdict:
    """Accept the challenger if it is not less accurate than the champion by more than `margin`.

    Args:
        challenger_accuracy: of the new model, 0 to 1.
        champion_accuracy: of the model in production on the same images, or None if there is none.
        images: how many images both were tried on.
        margin: accuracy that may be lost.
    """
    figure = f"accuracy {challenger_accuracy:.4f} on {images} test photos"
    if champion_accuracy is None:
        return Verdict(True, f"First model in production: {figure}.", challenger_accuracy, None)
    change = challenger_accuracy - champion_accuracy
    # Accuracies are counts over the same number of images; rounding keeps a loss of exactly the margin inside it.
    is_accepted = round(change + margin, 9) >= 0
    against = f"{figure}, against {champion_accuracy:.4f} in production ({change:+.4f}; margin {margin:g})"
    words = f"Accepted: {against}." if is_accepted else f"Refused: {against}. The model in production stays."
    return Verdict(is_accepted, words, challenger_accuracy, champion_accuracy)
