from pathlib import Path

import numpy as np
import pytest

from regraft.features.table import Features, FileRows, OpenFile
from regraft.training import logistic
from regraft.training.logistic import Problem, fit_linear

IMAGES, DIM, CLASSES = 300, 40, 3


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    """Images of classes that overlap, with features that are far from zero and vary differently."""
    random = np.random.default_rng(0)
    classes = random.integers(CLASSES, size=IMAGES)
    centres = random.normal(5, 0.5, (CLASSES, DIM))
    values = (random.normal(centres[classes], 1) * random.uniform(0.1, 3, DIM)).astype(np.float32)
    path: Path = tmp_path_factory.mktemp("features") / "values"
    path.write_bytes(values.tobytes())
    features = Features(
        digests=[f"{number:064x}" for number in range(IMAGES)],
        views=np.zeros(IMAGES, np.int16),
        splits=np.full(IMAGES, "train"),
        class_indices=classes,
        class_names=list("abc"),
        namespace="random",
        dim=DIM,
        rows=FileRows(OpenFile(path), np.arange(IMAGES) * DIM * 4, DIM),
    )
    return Problem(features, np.arange(IMAGES), classes, np.ones(IMAGES, np.float32), np.zeros(CLASSES, np.float32))


def solve(problem: Problem, *penalties: float, smoothing: float = 0.0) -> list[list[np.ndarray]]:
    smoothings = [smoothing] * len(penalties)
    return fit_linear(problem, penalties, smoothings, max_passes=300, on_pass=lambda _: None)[0]


def probabilities(problem: Problem, head: list[np.ndarray]) -> np.ndarray:
    outputs = np.exp(problem.features.read(problem.positions).astype(float) @ head[0] + head[1])
    return outputs / outputs.sum(axis=1, keepdims=True)


def test_it_finds_the_optimum_that_scikit_learn_finds(problem):
    from sklearn.linear_model import LogisticRegression

    values = problem.features.read(problem.positions).astype(float)
    scaled = (values - values.mean(axis=0)) / np.sqrt(values.var(axis=0).mean())
    penalties = (1.0, 0.1, 0.01)
    for penalty, head in zip(penalties, solve(problem, *penalties), strict=True):
        theirs = LogisticRegression(C=1 / (IMAGES * penalty), max_iter=2000, tol=1e-8)
        expected = theirs.fit(scaled, problem.class_indices).predict_proba(scaled)
        # The search ends where a step gains less than 1e-5 of loss.
        assert probabilities(problem, head) == pytest.approx(expected, abs=0.02)


def test_rows_that_are_read_again_in_every_pass_give_the_same_bytes(problem, monkeypatch):
    monkeypatch.setattr(logistic, "_BLOCK_ROWS", 64)
    kept = solve(problem, 0.1)
    monkeypatch.setattr(logistic, "_KEPT_BYTES", 130 * DIM * 4)
    assert all(map(np.array_equal, solve(problem, 0.1)[0], kept[0]))


def test_with_many_images_it_starts_near_and_ends_at_the_same_optimum(problem, monkeypatch):
    (expected,) = solve(problem, 0.1)
    monkeypatch.setattr(logistic, "_SAMPLE_ROWS", 100)
    (found,) = solve(problem, 0.1)
    # Scaled by a sample, so by a little less or more.
    assert probabilities(problem, found) == pytest.approx(probabilities(problem, expected), abs=0.03)


def test_smoothed_targets_are_what_it_is_sure_of(problem):
    plain, smoothed = (solve(problem, 1e-4, smoothing=smoothing)[0] for smoothing in (0.0, 0.3))
    true = np.arange(IMAGES), problem.class_indices
    assert probabilities(problem, plain)[true].mean() > 0.98
    assert 0.7 < probabilities(problem, smoothed)[true].mean() < 1 - 0.3 * 2 / 3
