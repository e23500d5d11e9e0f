"""Weights between the head alone and the fine-tuned network."""

import numpy as np
import pytest

from regraft.training import blending
from regraft.training.blending import ALPHAS, between, blend, choose
from regraft.training.class_weights import objective_of
from regraft.training.inputs import Images
from regraft.training.keras_models import start_keras
from regraft.training.metrics import Score, score
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


def test_the_network_has_the_weights_with_the_lowest_log_loss_on_val(trainer, ends):
    losses = {}
    for alpha in ALPHAS:
        trainer.set_weights([(1 - alpha) * old + alpha * new for old, new in zip(*ends, strict=True)])
        losses[alpha] = score(CLASSES, trainer.predict(IMAGES)).log_loss
    result = blend(trainer, *ends, IMAGES, ACCURACY)
    assert result.alpha == min(losses, key=losses.__getitem__)
    assert {alpha: figures.log_loss for alpha, figures in result.scores.items()} == pytest.approx(losses, rel=1e-4)
    assert score(CLASSES, trainer.predict(IMAGES)) == result.scores[result.alpha]


@pytest.mark.parametrize("is_better", ["before", "after"])
def test_the_ends_are_what_they_were_to_the_bit(trainer, ends, is_better):
    worse = [array + 50 * np.sign(array) for array in ends[0]]
    order = (ends[0], worse) if is_better == "before" else (worse, ends[0])
    assert blend(trainer, *order, IMAGES, ACCURACY).alpha == (0.0 if is_better == "before" else 1.0)
    assert all(np.array_equal(*pair) for pair in zip(trainer.weights(), ends[0], strict=True))


def test_without_val_photos_the_fine_tuned_network_is_used(trainer, ends):
    result = blend(trainer, *ends, Images(read_values, CLASSES[:0]), ACCURACY)
    assert (result.alpha, result.scores, result.images) == (1.0, {}, 0)
    assert all(np.array_equal(*pair) for pair in zip(trainer.weights(), ends[1], strict=True))


def test_of_equal_networks_the_one_nearest_to_the_head_alone_is_used():
    equal = Score(0.9, 0.3, 0.9, 0.3)
    assert choose(dict.fromkeys(ALPHAS, equal), ACCURACY) == 0.0


def test_where_rare_classes_are_helped_the_balanced_log_loss_decides():
    scores = {0.0: Score(0.9, 0.3, 0.5, 0.9), 1.0: Score(0.8, 0.5, 0.8, 0.4)}
    assert [choose(scores, objective_of(way)) for way in ("none", "balanced")] == [0.0, 1.0]


def test_half_way_is_the_mean():
    (half,) = between([np.float32([1, 2])], [np.float32([3, 6])], 0.5)
    assert half.dtype == np.float32
    assert half.tolist() == [2, 4]
    assert blending.ALPHAS[0] == 0
    assert blending.ALPHAS[-1] == 1
