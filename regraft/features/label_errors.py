"""Labels that the features contradict: each photo is judged by a classifier that was trained on all the others."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from regraft.features.neighbours import Embeddings

_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # in units of the mean variance along an axis
_FITTED_ROWS = 8192  # that the temperature is fitted on; of more, an evenly spaced part
_LARGEST_TEMPERATURE = 100.0
_SURE = 0.9  # a probability that is enough, however sure the features usually are
_TIMES = 2  # as probable as the label is what a likely error is said to be instead


@dataclass(frozen=True, slots=True)
class _Regression:
    """Least squares on one-hot labels, solved along the principal axes: what is left is one product per image."""

    axes: np.ndarray  # float32, (dim, dim)
    mean: np.ndarray  # float32, (dim,)
    variances: np.ndarray  # float32, (dim,)
    targets: np.ndarray  # float32, (dim, classes): the axes' products with the centred labels
    prior: np.ndarray  # float32, (classes,)
    images: int

    def left_out(self, points: np.ndarray, labels: np.ndarray, ridges: np.ndarray) -> np.ndarray:
        """Return the outputs for points, each from all images but itself: float32, (ridges, n, classes).

        Exactly what n regressions would give, from one: y_i without i = (y_i - h_ii t_i) / (1 - h_ii), where t is the
        target and h_ii the weight of an image in its own output (Rifkin & Lippert, "Notes on regularized least
        squares", 2007).
        """
        along = (points - self.mean) @ self.axes
        own = np.eye(len(self.prior), dtype=np.float32)[labels]
        outputs = np.empty((len(ridges), *own.shape), np.float32)
        for number, ridge in enumerate(ridges):
            shrunk = 1 / (self.variances + ridge)
            weight = (along * along) @ shrunk + np.float32(1 / self.images)
            whole = along @ (shrunk[:, None] * self.targets) + self.prior
            outputs[number] = (whole - weight[:, None] * own) / np.maximum(1 - weight[:, None], 1e-6)
        return outputs


def label_probabilities(embeddings: Embeddings) -> np.ndarray:
    """Return the probability of every class for every image, from all other images: float32, shape (n, classes).

    The outputs of a ridge regression on one-hot labels with that image left out, as the softmax whose temperature fits
    the labels best. Which ridge: the one with the smallest squared error on the images left out.
    """
    labels = embeddings.class_indices
    with threadpool_limits(1, user_api="blas"):
        regression = _regression(embeddings, labels)
        mean_variance = max(float(embeddings.variances.mean()), 1e-6)
        ridges = np.array(_RIDGES, np.float32) * np.float32(mean_variance)
        errors = np.zeros(len(ridges))
        for rows, points in embeddings.blocks():
            outputs = regression.left_out(points, labels[rows], ridges)
            outputs[:, np.arange(len(rows)), labels[rows]] -= 1
            errors += np.square(outputs, out=outputs).sum(axis=(1, 2), dtype=np.float64)
        best = ridges[[int(errors.argmin())]]
        outputs = np.empty((len(embeddings), len(embeddings.features.class_names)), np.float32)
        for rows, points in embeddings.blocks():
            outputs[rows] = regression.left_out(points, labels[rows], best)[0]
    return _calibrated(outputs, labels)


def rank_labels(probabilities: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return the images, the least believable label first.

    A label is likely wrong if another class is as probable as it usually is for images with that label: the criterion
    of confident learning. Where classes are so far apart that this is nearly 1, a probability of 0.9 is enough; and the
    class must be twice as probable as the label, so that nothing follows from features that say nothing.

    Returns:
        row: of the image. suggested: index of the class that the features speak for. score: the probability of its own
        label, between 0 and 1. likely: whether the label is likely wrong. A class of one image is left out: nothing is
        known of it without that image.

    Source: Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021.
    """
    images, classes = probabilities.shape
    counts = np.bincount(labels, minlength=classes)
    score = probabilities[np.arange(images), labels]
    usual = np.bincount(labels, score, minlength=classes) / np.maximum(1, counts)
    usual = np.where(counts < 2, np.inf, np.minimum(usual, _SURE))
    others = probabilities.copy()
    others[np.arange(images), labels] = -1
    others[:, counts < 2] = -1
    confident = np.where(others >= usual.astype(np.float32), others, -1)
    suggested = np.where(confident.max(axis=1) > 0, confident.argmax(axis=1), others.argmax(axis=1))
    likely = confident.max(axis=1) >= _TIMES * score
    ranked = pd.DataFrame({"row": np.arange(images), "suggested": suggested, "score": score, "likely": likely})
    return ranked[counts[labels] >= 2].sort_values(["score", "row"], kind="stable").reset_index(drop=True)


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
