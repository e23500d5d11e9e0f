"""Models that can be asked at all: those that load, and name the class of a photo."""

from pathlib import Path

import numpy as np

from regraft.core.addresses import shown_path
from regraft.core.errors import RegraftError
from regraft.export.calibration import as_learnt
from regraft.export.classifier import OnnxClassifier


def load_challenger(path: Path) -> OnnxClassifier:
    """Return the new model.

    Raises:
        RegraftError: there is none, or it cannot name the class of a photo.
    """
    return OnnxClassifier(path, is_own=False)


def load_champion(path: Path) -> tuple[OnnxClassifier | None, str | None]:
    """Return the model in production, or None and a sentence on why it is of no use."""
    try:
        classifier = OnnxClassifier(path, is_own=False)
        as_learnt(np.zeros((0, len(classifier.class_names)), np.float32), classifier.metadata)
        return classifier, None
    except ValueError as error:
        return None, f"{shown_path(path)} cannot be compared ({error})."
    except RegraftError as error:
        return None, str(error).removesuffix(" Export it again.")
    except OSError as error:
        return None, f"{shown_path(path)} cannot be read: {error.strerror}."
