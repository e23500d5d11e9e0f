"""How frequent classes are in use, where that is not as in the photos here: `export_onnx.class_shares`.

A file with such shares says so in its metadata. Its probabilities follow another mix of classes than that of val and
test. So two files are compared without their shifts; and of what one file does in use, val and test photos tell as much
as their class is more or less frequent there.

    p(class | photo) in use  ~  p(class | photo) as learnt * share in use / share learnt       (the shift of a file)
    a mean over photos in use = the mean over photos here, each with the weight  share in use / share here

Both hold where photos of a class look the same here and in use (label shift). Sources: Saerens, Latinne and
Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation 14, 2002;
Lipton, Wang and Smola, "Detecting and correcting for label shift with black box predictors", ICML 2018.
"""

import json
from collections.abc import Mapping

import numpy as np

from regraft.export.calibration import logits_of, softmax

SHIFT, SHARES = "logit_shift", "class_shares"  # in the metadata of a file


def shares_of(metadata: Mapping[str, str]) -> dict[str, float] | None:
    """Return how frequent each class is in use; None where that is as in the photos, or an older file does not say."""
    return json.loads(metadata[SHARES]) if SHARES in metadata else None


def as_learnt(probabilities: np.ndarray, metadata: Mapping[str, str]) -> np.ndarray:
    """Return what a file would say without its shift: shape (n, num_classes), and float64 where it has one.

    Raises:
        ValueError: the metadata has no number for each class.
    """
    if SHIFT not in metadata:
        return probabilities
    shift = np.array(json.loads(metadata[SHIFT]), np.float64)
    if shift.shape != probabilities.shape[1:] or not np.isfinite(shift).all():
        raise ValueError(f"{SHIFT} in the metadata must be {probabilities.shape[1]} numbers")
    return softmax(logits_of(probabilities) - shift)


def weights_for_use(
    class_indices: np.ndarray, class_names: list[str], shares: Mapping[str, float] | None
) -> np.ndarray | None:
    """Return what each photo counts for: share in use / share here, float64, shape (n,); None where all count the same.

    The mean is 1. A class of which there is no photo cannot be measured; the others share what it has.
    """
    if shares is None or not len(class_indices):
        return None
    used = np.array([shares.get(name, 0.0) for name in class_names], np.float64)
    weights = (used / np.bincount(class_indices, minlength=len(used)).clip(1))[class_indices]
    return weights / weights.mean()


def rows_for_use(class_indices: np.ndarray, class_names: list[str], shares: Mapping[str, float] | None) -> np.ndarray:
    """Return the positions of as many photos of each class that the classes are as frequent as in use.

    For exact bounds, which know no weights. All photos of the class that is rarest here beside use are taken, and of
    the others every second, every third ..., which is as good as drawn: the order of photos is that of their digests.
    Where there is no photo of a class, nothing is known of photos in use, and none is taken.

    Sources: rejection sampling, as Park, Dobriban, Lee and Bastani, "PAC prediction sets under covariate shift", ICLR
    2022, do it; that a count of classes which is fixed and not drawn only narrows the spread: Hoeffding, "On the
    distribution of the number of successes in independent trials", Annals of Mathematical Statistics 27, 1956.
    """
    counts = np.bincount(class_indices, minlength=len(class_names))
    if shares is None:
        return np.arange(len(class_indices))
    if not counts.all():
        return np.zeros(0, int)
    taken = np.array([shares[name] for name in class_names], np.float64) / counts
    taken = (taken / taken.max())[class_indices]  # of each photo: the part of its class
    rank = np.empty(len(class_indices), int)
    order = np.argsort(class_indices, kind="stable")
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Rounded, so that the last bits of products decide on no photo.
    return np.flatnonzero(np.floor(((rank + 1) * taken).round(9)) > np.floor((rank * taken).round(9)))
