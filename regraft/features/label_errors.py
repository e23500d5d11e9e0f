"""Labels that the features contradict: each photo is judged by a classifier trained on all photos outside its group."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from regraft.features.neighbours import Embeddings

_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # in units of the mean variance along an axis
_FITTED_ROWS = 8192  # that ridge and temperature are chosen on; of more, an evenly spaced part
_ROWS = 512  # in memory at a time
_LARGEST_GROUP = 2048  # photos that are left out together; a larger group is taken apart, or its block fills the memory
_LARGEST_TEMPERATURE = 100.0
_SURE = 0.9  # a probability that is enough, however sure the features usually are
_TIMES = 2  # as probable as the label is what a likely error is said to be instead
_NOTHING_ELSE = 1e-6  # keeps a system solvable where there is nothing but the group


@dataclass(frozen=True, slots=True)
class _Regression:
    """Least squares on one-hot labels, solved along the principal axes: what is left is small."""

    axes: np.ndarray  # float32, (dim, dim)
    mean: np.ndarray  # float32, (dim,)
    variances: np.ndarray  # float32, (dim,): sums of squares along the axes
    targets: np.ndarray  # float32, (dim, classes): the axes' products with the centred labels
    prior: np.ndarray  # float32, (classes,)
    images: int

    def left_out(self, points: np.ndarray, labels: np.ndarray, ridges: np.ndarray) -> np.ndarray:
        """Return the outputs for the images of groups of one size, each from all images outside its group.

        Exactly what a regression without the group would give: t - (I - H)^-1 (t - y), with t the targets of the
        group's images, y their outputs, and H their block of the hat matrix, by Woodbury's identity. For groups of one
        image it is the known (y - h t) / (1 - h) (Rifkin & Lippert, "Notes on regularized least squares", 2007).

        Returns:
            float32, (ridges, groups, size, classes).
        """
        # One product for all groups, because many small ones are slow.
        flat = (points - self.mean).reshape(-1, points.shape[-1]) @ self.axes
        along = flat.reshape(points.shape)
        own = np.eye(len(self.prior), dtype=np.float32)[labels]
        outputs = np.empty((len(ridges), *own.shape), np.float32)
        for number, ridge in enumerate(ridges):
            shrunk = 1 / (self.variances + ridge)
            missed = own - (flat @ (shrunk[:, None] * self.targets) + self.prior).reshape(own.shape)
            hat = (along * shrunk) @ along.transpose(0, 2, 1) + np.float32(1 / self.images)
            rest = (1 + _NOTHING_ELSE) * np.eye(labels.shape[1]) - hat
            outputs[number] = own - np.linalg.solve(rest, missed.astype(np.float64))
        return outputs


def label_probabilities(embeddings: Embeddings, groups: np.ndarray) -> np.ndarray:
    """Return the probability of every class for every image, from all images outside its group.

    The outputs of a ridge regression on one-hot labels with the group left out, as the softmax whose temperature fits
    the labels best. Which ridge: the one with the smallest squared error on what is left out.

    Args:
        embeddings: of the data set.
        groups: int, shape (n,), 0 and up: equal for images of which none vouches for another one.

    Returns:
        float32, shape (n, classes).
    """
    labels, groups = embeddings.class_indices, _of_bounded_size(groups)
    with threadpool_limits(1, user_api="blas"):
        regression = _regression(embeddings, labels)
        mean_variance = max(float(embeddings.variances.mean()), 1e-6)
        ridges = np.array(_RIDGES, np.float32) * np.float32(mean_variance)
        errors = np.zeros(len(ridges))
        for rows in _by_size(groups, _some(groups)):
            outputs = _outputs(regression, embeddings, rows, ridges)
            outputs[:, np.arange(rows.size), labels[rows.ravel()]] -= 1
            errors += np.square(outputs, out=outputs).sum(axis=(1, 2), dtype=np.float64)
        best = ridges[[int(errors.argmin())]]
        left_out = np.empty((len(embeddings), len(embeddings.features.class_names)), np.float32)
        for rows in _by_size(groups, np.arange(len(groups))):
            left_out[rows.ravel()] = _outputs(regression, embeddings, rows, best)[0]
    return _calibrated(left_out, labels)


def _of_bounded_size(groups: np.ndarray) -> np.ndarray:
    """Return groups of which none is larger than `_LARGEST_GROUP`."""
    if np.bincount(groups).max(initial=0) <= _LARGEST_GROUP:
        return groups
    order = np.argsort(groups, kind="stable")
    rank = np.empty(len(groups), int)
    rank[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order])
    return np.unique(np.column_stack([groups, rank // _LARGEST_GROUP]), axis=0, return_inverse=True)[1]


def _some(groups: np.ndarray) -> np.ndarray:
    """Rows of whole groups, about as many as are needed to choose a ridge; all of a small data set."""
    spread = np.linspace(0, len(groups) - 1, min(len(groups), _FITTED_ROWS)).astype(int)
    chosen = np.unique(groups[spread])
    enough = np.searchsorted(np.cumsum(np.bincount(groups)[chosen]), _FITTED_ROWS) + 1
    return np.flatnonzero(np.isin(groups, chosen[:enough]))


def _by_size(groups: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield rows of whole groups as arrays (groups, size), some hundred rows at a time."""
    order = rows[np.argsort(groups[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    for size in np.unique(sizes).tolist():
        of_size = order[starts[sizes == size][:, None] + np.arange(size)]
        at_a_time = max(1, _ROWS // size)
        for start in range(0, len(of_size), at_a_time):
            yield of_size[start : start + at_a_time]


def _outputs(regression: _Regression, embeddings: Embeddings, rows: np.ndarray, ridges: np.ndarray) -> np.ndarray:
    """Return the outputs of groups of one size, rows of shape (groups, size): (ridges, groups * size, classes)."""
    points = embeddings.read(rows.ravel()).reshape(*rows.shape, -1)
    return regression.left_out(points, embeddings.class_indices[rows], ridges).reshape(len(ridges), rows.size, -1)


def rank_labels(probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """Return the images, the least believable label first.

    A label is likely wrong if another class is as probable as it usually is for images with that label (confident
    learning), or has a probability of 0.9; and the class must be twice as probable as the label.

    Returns:
        row: of the image. suggested: index of the class that the features speak for. score: the probability of its own
        label, between 0 and 1. likely: whether the label is likely wrong. A class of one group is left out: nothing is
        known of it without that group.

    Source: Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021.
    """
    images, classes = probabilities.shape
    counts = np.bincount(labels, minlength=classes)
    is_known = np.bincount(np.unique(np.column_stack([groups, labels]), axis=0)[:, 1], minlength=classes) > 1
    score = probabilities[np.arange(images), labels]
    usual = np.bincount(labels, score, minlength=classes) / np.maximum(1, counts)
    usual = np.where(is_known, np.minimum(usual, _SURE), np.inf)
    others = probabilities.copy()
    others[np.arange(images), labels] = -1
    others[:, ~is_known] = -1
    confident = np.where(others >= usual.astype(np.float32), others, -1)
    suggested = np.where(confident.max(axis=1) > 0, confident.argmax(axis=1), others.argmax(axis=1))
    likely = confident.max(axis=1) >= _TIMES * score
    ranked = pd.DataFrame({"row": np.arange(images), "suggested": suggested, "score": score, "likely": likely})
    return ranked[is_known[labels]].sort_values(["score", "row"], kind="stable").reset_index(drop=True)


def _regression(embeddings: Embeddings, labels: np.ndarray) -> _Regression:
    """The regression of the labels on the points, before any ridge is added to it."""
    classes = len(embeddings.features.class_names)
    prior = np.bincount(labels, minlength=classes) / len(labels)
    products = np.zeros((len(embeddings.mean), classes))
    for rows, points in embeddings.blocks():
        products += points.T @ np.eye(classes, dtype=np.float32)[labels[rows]]
    products -= len(labels) * np.outer(embeddings.mean, prior)
    return _Regression(
        axes=embeddings.axes.astype(np.float32),
        mean=embeddings.mean.astype(np.float32),
        variances=embeddings.variances.astype(np.float32),
        targets=(embeddings.axes.T @ products).astype(np.float32),
        prior=prior.astype(np.float32),
        images=len(labels),
    )


def _calibrated(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The softmax of the outputs, at the temperature with the smallest cross-entropy; in place."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    chosen = np.linspace(0, len(labels) - 1, min(len(labels), _FITTED_ROWS)).astype(int)
    sample, own = outputs[chosen].astype(np.float64), labels[chosen]

    def cross_entropy(inverse_temperature: float) -> float:
        logits = inverse_temperature * sample
        return float(np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(own)), own]))

    outputs *= np.float32(minimize_scalar(cross_entropy, bounds=(0, _LARGEST_TEMPERATURE), method="bounded").x)
    outputs -= outputs.max(axis=1, keepdims=True)
    np.exp(outputs, out=outputs)
    outputs /= outputs.sum(axis=1, keepdims=True)
    return outputs
