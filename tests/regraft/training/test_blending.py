"""Weights between the head alone and the fine-tuned network."""

import numpy as np
import pytest

from regraft.training import blending
from regraft.training.blending import ALPHAS, between, blend, choose, usual_of
from regraft.training.class_weights import objective_of
from regraft.training.inputs import Images
from regraft.training.keras_models import start_keras
from regraft.training.metrics import score
from tests.support.networks import CLASSES, IMAGES, VALUES, build_small, read_values, trainer_of

ACCURACY = objective_of("none")


@pytest.fixture
def trainer():
    start_keras(0)
    return trainer_of(build_small())


@pytest.fixture
def ends(trainer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights before and after some steps, the last of which are too long."""
    before, targets = trainer.weights(), np.eye(3, dtype=np.float32)[CLASSES]
    for number in range(30):
        trainer.step(VALUES, targets, 0.03 if number < 20 else 0.3)
    return before, trainer.weights()


def test_what_was_chosen_is_in_the_network(trainer, ends):
    result = blend(trainer, ends, IMAGES, ACCURACY, usual=0.75)
    assert list(result.scores) == list(ALPHAS)
    chosen = between(ends[0], ends[1], result.alpha)
    assert all(np.array_equal(*pair) for pair in zip(trainer.weights(), chosen, strict=True))
    assert score(CLASSES, trainer.predict(IMAGES)) == result.scores[result.alpha]


@pytest.mark.parametrize("is_better", ["before", "after"])
def test_the_ends_are_what_they_were_to_the_bit(trainer, ends, is_better):
    worse = [array + 50 * np.sign(array) for array in ends[0]]
    order = (ends[0], worse) if is_better == "before" else (worse, ends[0])
    assert blend(trainer, order, IMAGES, ACCURACY, usual=0.75).alpha == (0.0 if is_better == "before" else 1.0)
    assert all(np.array_equal(*pair) for pair in zip(trainer.weights(), ends[0], strict=True))


@pytest.mark.parametrize("usual", [0.0, 0.5])
def test_without_val_photos_the_usual_network_is_used(trainer, ends, usual):
    result = blend(trainer, ends, Images(read_values, CLASSES[:0]), ACCURACY, usual=usual)
    assert (result.alpha, result.scores, result.images) == (usual, {}, 0)
    assert all(np.array_equal(*pair) for pair in zip(trainer.weights(), between(ends[0], ends[1], usual), strict=True))


def test_with_few_photos_the_usual_network_is_nearer_to_the_head_alone():
    assert [usual_of(images) for images in (0, 699, 700, 100_000)] == [0.5, 0.5, 0.75, 0.75]


TRUE = np.repeat([0, 1], [180, 20])


def said(of_first: float, of_second: float, *, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Probabilities of which the right class has so much, by class."""
    right = np.where(TRUE == 0, of_first, of_second) + noise * np.random.default_rng(seed).normal(size=len(TRUE))
    right = np.clip(right, 0.01, 0.99)
    return np.where(np.eye(2)[TRUE] == 1, right[:, None], 1 - right[:, None])


@pytest.mark.parametrize("gain", [-0.1, 0.1])
def test_another_network_than_the_usual_one_is_used_only_if_it_is_shown_to_be_better(gain):
    usual = said(0.7, 0.7, noise=0.1)
    assert choose({0.0: said(0.7 + gain, 0.7 + gain), 0.75: usual}, TRUE, ACCURACY, usual=0.75).alpha == (
        0.0 if gain > 0 else 0.75
    )


def test_a_gain_that_may_be_chance_is_none():
    """On each photo one of the two is better by as much as the other on another photo."""
    alphas = [
        choose(
            {0.0: said(0.7, 0.7, noise=0.1, seed=2 * n), 0.75: said(0.7, 0.7, noise=0.1, seed=2 * n + 1)},
            TRUE,
            ACCURACY,
            usual=0.75,
        ).alpha
        for n in range(200)
    ]
    assert alphas.count(0.0) <= 12  # 2.5 % are expected, 5 of 200


def test_where_rare_classes_are_helped_the_balanced_log_loss_decides():
    networks = {0.0: said(0.8, 0.4, noise=0.01), 0.75: said(0.7, 0.7, noise=0.01, seed=1)}
    assert [choose(networks, TRUE, objective_of(way), usual=0.0).alpha for way in ("none", "balanced")] == [0.0, 0.75]


def test_half_way_is_the_mean():
    (half,) = between([np.array([1, 2], np.float32)], [np.array([3, 6], np.float32)], 0.5)
    assert half.dtype == np.float32
    assert half.tolist() == [2, 4]
    assert blending.ALPHAS[0] == 0
    assert blending.ALPHAS[-1] == 1
