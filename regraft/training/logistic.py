"""Linear heads: multinomial logistic regression with an L2 penalty, by L-BFGS on blocks of rows.

Heads of several penalties are found at once: a block is read once, and one product serves all. With features
standardised as a whole, x' = (x - mean) / sqrt(mean variance), a head minimises

    mean over images of weight * cross-entropy(targets, softmax(V x' + b)) + penalty / 2 * |V|^2.

scikit-learn's L-BFGS takes 2 to 6 times as long to the same loss (`benchmarks.speed.linear_head`), holds all features
in memory, and knows neither label smoothing nor logit adjustment.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.features.table import Features

_BLOCK_ROWS = 1024
_BLOCK_OUTPUTS = 2**20  # logits of a block, at most
_KEPT_BYTES = 2**28  # of features in memory between passes; rows beyond are read again in each
_SAMPLE_ROWS = 4096  # that the search starts on where there are many more: their optimum is near
_AXES_ROWS, _AXES = 1024, 128  # of the features' covariance
_LARGEST_PROBLEM = 2**21  # weights that are searched for at once; L-BFGS remembers about 25 numbers of each
_CLOSE = 1e-5  # the search ends once a step lowers the mean loss of the heads by less
_CURVATURE = 0.2  # times classes, of a softmax that is mostly right; what it starts to search with


@dataclass(frozen=True, slots=True)
class Problem:
    """Images that heads are fitted to."""

    features: Features
    positions: np.ndarray  # of their rows, (n,)
    class_indices: np.ndarray  # (n,)
    weights: np.ndarray  # of each in the loss, float32, (n,); they average to 1
    log_prior: np.ndarray  # added to the logits while fitting, float32, (num_classes,)

    def evenly(self, rows: int) -> "Problem":
        """Return a part of at most so many images, evenly spaced."""
        part = np.linspace(0, len(self.positions) - 1, min(rows, len(self.positions))).astype(int)
        positions, classes, weights = self.positions[part], self.class_indices[part], self.weights[part]
        return replace(self, positions=positions, class_indices=classes, weights=weights)


def fit_linear(
    problem: Problem,
    penalties: Sequence[float],
    smoothing: Sequence[float],
    *,
    max_passes: int,
    on_pass: Callable[[int], None],
) -> tuple[list[list[np.ndarray]], list[float], int]:
    """Find the linear heads with the lowest loss.

    Args:
        problem: the images.
        penalties: on the weights of each head, 0 or more.
        smoothing: share of the target spread over all classes, of each head.
        max_passes: over the images, after which the search ends; a step that was begun is finished.
        on_pass: called after each pass with its number.

    Returns:
        Kernel (inputs, outputs) and bias of each head, float32; their losses without penalty; passes over the images.
    """
    # Loaded before the limit, which holds for libraries that are there.
    import scipy.linalg
    import scipy.optimize  # noqa: F401

    kernels, losses, passes = [], [], 0
    together = max(1, _LARGEST_PROBLEM // (len(problem.log_prior) * (problem.features.dim + 1)))
    # For products of this size more threads take twice the processor's time for a tenth less of ours; and where other
    # programs run, they wait for each other most of the time.
    with threadpool_limits(1, user_api="blas"):
        sample = problem.evenly(_SAMPLE_ROWS)
        scale = _Scale.of(problem.features.read(sample.positions))
        axes = _Axes.of(scale(problem.features.read(problem.evenly(_AXES_ROWS).positions)))
        for first in range(0, len(penalties), together):
            some = slice(first, first + together)
            heads = np.array(penalties[some], np.float32), np.array(smoothing[some], np.float32)
            shape = (len(heads[0]), len(problem.log_prior), problem.features.dim + 1)
            start, curvature = np.zeros(shape, np.float32), np.full(len(heads[0]), _CURVATURE / shape[1])
            if len(problem.positions) > 2 * _SAMPLE_ROWS:
                near = _Search(_Losses(sample, scale, *heads), axes, curvature, max_passes, lambda _: None)
                start, curvature = near.run(start), near.curvature
            search = _Search(_Losses(problem, scale, *heads), axes, curvature, max_passes, on_pass)
            kernels += [scale.undo(head) for head in search.run(start)]
            losses += search.losses.tolist()
            passes = max(passes, search.passes)
    return kernels, losses, passes


@dataclass(frozen=True, slots=True)
class _Scale:
    """Features as a whole are moved and scaled, so that a penalty means the same for every backbone."""

    mean: np.ndarray  # (inputs,)
    factor: np.float32

    @classmethod
    def of(cls, values: np.ndarray) -> "_Scale":
        variance = float(values.var(axis=0, dtype=np.float64).mean())
        return cls(values.mean(axis=0, dtype=np.float64).astype(np.float32), np.float32(1 / np.sqrt(variance or 1)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (values - self.mean) * self.factor

    def undo(self, head: np.ndarray) -> list[np.ndarray]:
        """Return kernel and bias for features as they are, from (classes, inputs + 1) for scaled ones."""
        kernel = head[:, :-1] * self.factor
        return [np.ascontiguousarray(kernel.T), head[:, -1] - kernel @ self.mean]


class _Losses:
    """The losses of some heads, and their gradients, as functions of all weights: (heads, classes, inputs + 1)."""

    def __init__(self, problem: Problem, scale: _Scale, penalties: np.ndarray, smoothing: np.ndarray) -> None:
        self._problem, self._scale, self.penalties, self._smoothing = problem, scale, penalties, smoothing
        heads = len(penalties) * len(problem.log_prior)
        self._rows = max(1, min(_BLOCK_ROWS, _BLOCK_OUTPUTS // heads))
        features = problem.features
        kept = _KEPT_BYTES // (features.dim * 4) // self._rows * self._rows
        self._kept = features.read(problem.positions[:kept])

    def at(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return each head's loss without penalty, the gradient of its loss with it, and its mean curvature."""
        count, num_classes, _ = weights.shape
        problem, scale, smoothing = self._problem, self._scale, self._smoothing
        kernel = weights[..., :-1].reshape(count * num_classes, -1) * scale.factor
        bias = weights[..., -1] - (kernel @ scale.mean).reshape(count, num_classes) + problem.log_prior
        losses, curvature = np.zeros(count), np.zeros(count)
        of_kernel, of_bias = np.zeros_like(kernel), np.zeros((count, num_classes))
        for part, inputs in self._blocks():
            classes, shares, images = problem.class_indices[part], problem.weights[part, None], np.arange(len(inputs))
            logits = (inputs @ kernel.T).reshape(len(inputs), count, num_classes)
            logits += bias
            logits -= logits.max(axis=2, keepdims=True)
            aim = (1 - smoothing) * logits[images, :, classes] + smoothing * logits.mean(axis=2)
            errors = np.exp(logits, out=logits)
            sums = errors.sum(axis=2, keepdims=True)
            losses += ((np.log(sums[..., 0]) - aim) * shares).sum(axis=0, dtype=np.float64)
            errors /= sums
            curvature += ((1 - np.einsum("nhc,nhc->nh", errors, errors)) * shares).sum(axis=0, dtype=np.float64)
            errors[images, :, classes] -= 1 - smoothing
            errors -= (smoothing / num_classes)[:, None]
            errors *= shares[..., None]
            of_kernel += errors.reshape(len(inputs), -1).T @ inputs
            of_bias += errors.sum(axis=0)
        images = len(problem.positions)
        gradient, of_bias = np.empty_like(weights), of_bias.astype(np.float32)
        of_kernel = (of_kernel.reshape(count, num_classes, -1) - of_bias[..., None] * scale.mean) * scale.factor
        gradient[..., :-1] = of_kernel / images + self.penalties[:, None, None] * weights[..., :-1]
        gradient[..., -1] = of_bias / images
        return losses / images, gradient, curvature / images / num_classes

    def penalty_of(self, weights: np.ndarray) -> np.ndarray:
        """Return the penalty of each head."""
        return 0.5 * self.penalties * np.einsum("hcd,hcd->h", weights[..., :-1], weights[..., :-1])

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows in order, the same blocks in every pass."""
        for first in range(0, len(self._problem.positions), self._rows):
            part = slice(first, first + self._rows)
            if first < len(self._kept):
                yield part, self._kept[part]
            else:
                yield part, self._problem.features.read(self._problem.positions[part])


@dataclass(frozen=True, slots=True)
class _Axes:
    """The directions in which features vary most, from some of them; in all others they vary alike."""

    variances: np.ndarray  # (axes,)
    directions: np.ndarray  # (inputs, axes), orthonormal
    rest: float  # variance in any other direction

    @classmethod
    def of(cls, values: np.ndarray) -> "_Axes":
        from scipy.linalg import eigh

        images, inputs = values.shape
        products = values @ values.T if images < inputs else values.T @ values
        last = len(products) - 1
        squares, vectors = eigh(products, subset_by_index=(max(0, last + 1 - _AXES), last))
        is_real = squares > 1e-6 * squares[-1]  # of float32 products; where all features are equal there is none
        squares, vectors = squares[is_real], vectors[:, is_real]
        if images < inputs:
            vectors = values.T @ (vectors / np.sqrt(squares))
        left = max(0.0, float(np.einsum("nd,nd->", values, values) - squares.sum()))
        return cls(squares / images, vectors.astype(np.float32), left / images / max(1, inputs - len(squares)))


class _Search:
    """L-BFGS over the weights of some heads, in coordinates in which the loss curves alike in all directions.

    The loss curves by about curvature * variance + penalty along an axis of the features. Liu & Nocedal, "On the
    limited memory BFGS method for large scale optimization", 1989; in `scipy`.
    """

    def __init__(
        self, losses: _Losses, axes: _Axes, curvature: np.ndarray, max_passes: int, on_pass: Callable[[int], None]
    ) -> None:
        self._losses, self._axes, self._max_passes, self._on_pass = losses, axes, max_passes, on_pass
        curves = np.maximum(curvature, 1e-4)[:, None]  # a head that is right everywhere has none
        penalties = losses.penalties[:, None]
        self._along = (1 / np.sqrt(curves * axes.variances + penalties))[:, None].astype(np.float32)
        self._else = (1 / np.sqrt(curves * axes.rest + penalties + 1e-6))[:, None].astype(np.float32)
        self._of_bias = (1 / np.sqrt(curves))[:, None].astype(np.float32)
        self.curvature, self.losses, self.passes = curvature, np.zeros(len(curvature)), 0

    def run(self, start: np.ndarray) -> np.ndarray:
        """Return the weights with the lowest loss, from those to start from: (heads, classes, inputs + 1)."""
        from scipy.optimize import minimize

        def loss_of(values: np.ndarray) -> tuple[float, np.ndarray]:
            weights = self._scaled(values.reshape(start.shape).astype(np.float32), 1)
            self.losses, gradient, self.curvature = self._losses.at(weights)
            self.passes += 1
            self._on_pass(self.passes)
            total = float((self.losses + self._losses.penalty_of(weights)).sum())
            return total, self._scaled(gradient, 1).ravel().astype(np.float64)

        options = {"ftol": _CLOSE * len(start), "gtol": 0.0, "maxfun": self._max_passes, "maxiter": self._max_passes}
        first = self._scaled(start, -1).ravel().astype(np.float64)
        found = minimize(loss_of, first, jac=True, method="L-BFGS-B", options=options)
        return self._scaled(found.x.reshape(start.shape).astype(np.float32), 1)

    def _scaled(self, values: np.ndarray, power: int) -> np.ndarray:
        """Multiply by a symmetric matrix, the root of the inverse of the curvature, or divide by it (power -1)."""
        along, other, of_bias = self._along**power, self._else**power, self._of_bias**power
        kernel, directions = values[..., :-1], self._axes.directions
        result = np.empty_like(values)
        result[..., :-1] = other * kernel + ((kernel @ directions) * (along - other)) @ directions.T
        result[..., -1:] = of_bias * values[..., -1:]
        return result
