"""Models that can be asked at all: those that load, and name the class of a photo."""

from pathlib import Path

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, NotImplemented, RuntimeException

from regraft.addresses import shown_path
from regraft.errors import RegraftError
from regraft.export.class_shares import as_learnt
from regraft.export.classifier import OnnxClassifier


def load_challenger(path: Path) -> OnnxClassifier:
    """Return the new model.

    Raises:
        RegraftError: there is none, or it cannot name the class of a photo.
    """
    classifier = OnnxClassifier(path)
    if flaw := _flaw_of(classifier):
        raise RegraftError(f"{shown_path(path)} is no model that names the class of a photo ({flaw}). Export it again.")
    return classifier


def load_champion(path: Path) -> tuple[OnnxClassifier | None, str | None]:
    """Return the model in production, or None and a sentence on why it is of no use."""
    try:
        classifier = OnnxClassifier(path)
    except RegraftError as error:
        return None, str(error).removesuffix(" Export it again.")
    except OSError as error:
        return None, f"{shown_path(path)} cannot be read: {error.strerror}."
    flaw = _flaw_of(classifier)
    return (None, f"{shown_path(path)} cannot name the class of a photo ({flaw}).") if flaw else (classifier, None)


def _flaw_of(classifier: OnnxClassifier) -> str:
    """Why a model does not name one of its classes when it is shown a black photo; empty if it does."""
    names = classifier.class_names
    try:
        said = classifier.probabilities(np.zeros((64, 64, 3), np.uint8))
        as_learnt(said[None], classifier.metadata)
    except (ValueError, Fail, InvalidArgument, NotImplemented, RuntimeException) as error:
        return " ".join(str(error).split())[:200]
    if said.shape != (len(names),):
        return f"its probabilities are of shape {said.shape}, and its classes {str(names)[:100]}"
    return "" if np.isfinite(said).all() else "its probabilities are no numbers"
