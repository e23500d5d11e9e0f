"""Whether a new model may take the place of the one in production."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, NotImplemented, RuntimeException

from regraft.errors import RegraftError
from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided, and the figures that it decided on."""

    is_accepted: bool
    words: str
    challenger_accuracy: float | None  # None where it was not asked for, because it would change nothing
    champion_accuracy: float | None  # of the model in production on the same photos; None where there is none


def load_challenger(path: Path) -> OnnxClassifier:
    """Return the new model.

    Raises:
        RegraftError: there is none, or it cannot name the class of a photo.
    """
    classifier = OnnxClassifier(path)
    if flaw := _flaw_of(classifier):
        raise RegraftError(f"{path} is no model that names the class of a photo ({flaw}). Export it again.")
    return classifier


def load_champion(path: Path) -> tuple[OnnxClassifier | None, str | None]:
    """Return the model in production, or None and a sentence on why it is of no use."""
    try:
        classifier = OnnxClassifier(path)
    except RegraftError as error:
        return None, str(error).removesuffix(" Export it again.")
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}."
    flaw = _flaw_of(classifier)
    return (None, f"{path} cannot name the class of a photo ({flaw}).") if flaw else (classifier, None)


def _flaw_of(classifier: OnnxClassifier) -> str:
    """Why a model does not name one of its classes when it is shown a black photo; empty if it does."""
    names = classifier.class_names
    try:
        said = classifier.probabilities(np.zeros((64, 64, 3), np.uint8))
    except (ValueError, Fail, InvalidArgument, NotImplemented, RuntimeException) as error:
        return " ".join(str(error).split())[:200]
    if not isinstance(names, list) or said.shape != (len(names),):
        return f"its probabilities are of shape {said.shape}, and its classes {str(names)[:100]}"
    return "" if np.isfinite(said).all() else "its probabilities are no numbers"


def accuracy_of(classifier: OnnxClassifier, test: Dataset, probabilities: np.ndarray) -> float:
    """Return the share of test images whose class the model names.

    Names are compared, not indices: the model in production may know other classes than today's data has.
    """
    predicted = np.array(classifier.class_names)[probabilities.argmax(axis=1)]
    return float(np.mean(predicted == test.rows.class_name.to_numpy()))


def refuse_damaged(problem: str) -> Verdict:
    """Refuse a challenger because nobody can tell whether it is worse than the champion."""
    return Verdict(
        False,
        f"Refused: the new model cannot be compared with the one in production. {problem} `regraft promote "
        f"--rollback` puts the last sound model back, and `regraft promote` compares again then. `regraft promote "
        f"--force` puts the new model into production without a comparison.",
        None,
        None,
    )


def refuse_rolled_back(rolled_back: str) -> Verdict:
    """Refuse a challenger that was in production already, until somebody decided against it."""
    return Verdict(
        False,
        f"Refused: a person decided against this very model. {rolled_back} The model in production stays. Other photos "
        f"or settings give another model; `regraft promote --force` puts this one back into production.",
        None,
        None,
    )


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
