"""Linear heads of three penalties by our solver and by scikit-learn's L-BFGS: time to the same loss, on one core.

    python -m benchmarks.speed.linear_head [IMAGES]

Features are drawn as those of photos: few directions vary much and most vary little. Our solver also smooths labels,
adjusts logits, and reads features beyond 256 MB again in each pass, none of which scikit-learn's does.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.features.table import Features
from regraft.training.logistic import Problem, fit_linear

PENALTIES, DIM, CLASSES = (0.1, 0.05, 0.02), 1280, 10


@dataclass(frozen=True, slots=True)
class InMemory:
    """Features in memory."""

    values: np.ndarray

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return some of them."""
        return self.values[positions]

    def read_present(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return some of them, which are all there."""
        return self.values[positions], np.arange(len(positions))


def drawn(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features, float32, shape (images, DIM), and class indices."""
    random = np.random.default_rng(0)
    labels, scales = random.integers(CLASSES, size=images), 1 / np.arange(1, DIM + 1) ** 0.6
    axes = np.linalg.qr(random.normal(size=(DIM, DIM)))[0]
    points = random.normal(size=(images, DIM)) * scales + 0.6 * random.normal(size=(CLASSES, DIM))[labels] * scales
    return np.maximum(points @ axes + 0.1, 0).astype(np.float32), labels


def main() -> None:
    """Print the seconds of both, the larger loss of either, and the ratio."""
    from sklearn.linear_model import LogisticRegression

    images = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    values, labels = drawn(images)
    nothing, none = np.zeros(images, np.int16), np.zeros(CLASSES, np.float32)
    features = Features([], nothing, np.full(images, "train"), labels, [""] * CLASSES, "", DIM, InMemory(values))
    problem = Problem(features, np.arange(images), labels, np.ones(images, np.float32), none)
    start = time.perf_counter()
    heads, _, passes = fit_linear(problem, PENALTIES, [0.0] * 3, max_passes=100, on_pass=lambda _: None)
    ours = time.perf_counter() - start
    scale = np.sqrt(values.var(axis=0, dtype=np.float64).mean())
    scaled = ((values - values.mean(axis=0)) / scale).astype(np.float32)

    def total(logits: np.ndarray, kernel: np.ndarray, penalty: float) -> float:
        logits = logits - logits.max(axis=1, keepdims=True)
        log_loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(images), labels]
        return float(log_loss.mean() + penalty / 2 * np.square(kernel).sum())

    targets = [
        total(values @ kernel + bias, kernel * scale, penalty)
        for (kernel, bias), penalty in zip(heads, PENALTIES, strict=True)
    ]
    theirs = 0.0
    for penalty, target in zip(PENALTIES, targets, strict=True):
        for tolerance in (1e-1, 1e-2, 1e-3, 1e-4):  # the loosest that is as good counts
            start = time.perf_counter()
            with threadpool_limits(1, user_api="blas"):
                model = LogisticRegression(C=1 / penalty / images, tol=tolerance, max_iter=1000).fit(scaled, labels)
            seconds = time.perf_counter() - start
            reached = total(scaled @ model.coef_.T + model.intercept_, model.coef_, penalty)
            if reached <= target + 1e-4:
                break
        print(f"penalty {penalty:g}: ours {target:.5f}, scikit-learn's {reached:.5f} with tol {tolerance:g}")
        theirs += seconds
    print(f"{images:,} images: ours {ours:.2f} s in {passes} passes, scikit-learn's {theirs:.2f} s")
    print(f"ratio: {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
