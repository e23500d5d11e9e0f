"""The training loop, on a network of a few numbers."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import pytest

from regraft.core.config import ClassWeight, FineTune
from regraft.core.errors import RegraftError
from regraft.training import training_loop
from regraft.training.metrics import Epoch, class_prior
from regraft.training.network_file import start_keras
from regraft.training.trainer import Images
from regraft.training.training_loop import Checkpoint, Plan, Training, TrainingImages
from tests.support.library import fine_tune_settings
from tests.support.networks import CLASSES, IMAGES, VALUES, build_small, read_values, trainer_of, weights_in

SETTINGS = fine_tune_settings(epochs=4, learning_rate=0.01, max_minutes=1.0)


class Killed(BaseException):
    """Stands for a kill: nothing in the code may catch it."""


def changed(**settings: object) -> FineTune:
    return SETTINGS.model_copy(update=settings)


def training_of(
    model: keras.Model,
    folder: Path,
    settings: FineTune = SETTINGS,
    *,
    seed: int = 0,
    images: Images = IMAGES,
    class_weight: ClassWeight = "none",
) -> Training:
    trainer = trainer_of(model, prior=class_prior(class_weight, images.class_indices, 3))
    plan = Plan(settings, class_weight, seed)
    return Training(trainer, TrainingImages(images, IMAGES, 3), plan, Checkpoint(folder / "checkpoint.npz"))


def train(
    folder: Path,
    settings: FineTune = SETTINGS,
    *,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    images: Images = IMAGES,
    class_weight: ClassWeight = "none",
) -> tuple[keras.Model, list[Epoch]]:
    start_keras(seed)
    model = build_small()
    training = training_of(model, folder, settings, seed=seed, images=images, class_weight=class_weight)
    return model, training.run(on_epoch)


@pytest.fixture(scope="module", autouse=True)
def _small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop, "BATCH_SIZE", 16)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[bytes, list[Epoch]]:
    """The file and the curve of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    model, curve = train(folder)
    return weights_in(model), curve


# The schedule and the order.


@pytest.mark.parametrize("epochs", [2, 20])
def test_the_learning_rate_warms_up_for_a_tenth_of_the_steps_and_falls_to_zero(epochs):
    shares = [training_loop._schedule(epochs * done / 100, epochs) for done in range(101)]
    assert shares[0] == 0
    assert shares[10] == pytest.approx(1)
    assert np.all(np.diff(shares[:11]) > 0)
    assert np.all(np.diff(shares[10:]) < 0)
    assert shares[100] == pytest.approx(0)


def test_every_image_is_visited_once_per_epoch_in_a_new_order(tmp_path):
    visited: dict[int, list[list[int]]] = {}

    def noted(batches, epoch):
        visited[epoch] = [list(chosen) for chosen in batches]
        return read_values(batches, epoch)

    train(tmp_path, changed(epochs=2), images=Images(noted, CLASSES))
    assert [len(batch) for batch in visited[1]] == [16, 16, 8]
    assert [sorted(chain.from_iterable(visited[epoch])) for epoch in (1, 2)] == [list(range(40))] * 2
    assert visited[1] != visited[2]
    assert all(batch == sorted(batch) for batch in visited[1])  # as they lie in the store


# What is left in the network.


def test_a_training_that_leaves_the_finite_numbers_is_an_error_that_names_the_layer_and_leaves_no_checkpoint(tmp_path):
    with pytest.raises(
        RegraftError, match=r"not finite in epoch 1: the weights dense\S*/\w+.*Lower fine_tune.learning"
    ):
        train(tmp_path, changed(learning_rate=1e38))
    assert not (tmp_path / "checkpoint.npz").exists()


def test_every_epoch_is_run_and_the_weights_of_the_last_one_stay(tmp_path):
    seen: list[Epoch] = []
    weights: list[list[np.ndarray]] = []

    def note(epoch: Epoch) -> None:
        seen.append(epoch)
        weights.append(model.get_weights())

    start_keras(0)
    model = build_small()
    curve = training_of(model, tmp_path, changed(learning_rate=1.0)).run(note)  # so large that it gets worse again
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4]
    assert curve[1:] == seen
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), weights[-1], strict=True))
    assert not np.array_equal(weights[0][0], weights[-1][0])


# Going on.


@pytest.mark.parametrize("killed_after", [1, 4])
def test_after_a_kill_the_training_goes_on_and_ends_in_the_same_bytes(undisturbed, tmp_path, killed_after):
    def kill(epoch: Epoch) -> None:
        if epoch.epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, on_epoch=kill)
    later: list[int] = []
    model, curve = train(tmp_path, on_epoch=lambda epoch: later.append(epoch.epoch))
    expected, reference = undisturbed
    assert later == list(range(killed_after + 1, 5))
    assert weights_in(model) == expected
    assert curve == reference


@pytest.mark.parametrize("damage", [lambda contents: contents[:-100], lambda contents: b""])
def test_a_damaged_checkpoint_is_not_used(undisturbed, tmp_path, damage):
    train(tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(damage(path.read_bytes()))
    later: list[int] = []
    model, _ = train(tmp_path, on_epoch=lambda epoch: later.append(epoch.epoch))
    assert later == [1, 2, 3, 4]
    assert weights_in(model) == undisturbed[0]


# Rare classes.


@pytest.mark.parametrize("class_weight", ["balanced", "logit_adjustment"])
def test_a_rare_class_is_named_more_often_when_it_is_helped(tmp_path, class_weight):
    used = np.flatnonzero((CLASSES != 2) | (np.cumsum(CLASSES == 2) <= 2))
    images = Images(lambda batches, epoch: (VALUES[used[chosen]] for chosen in batches), CLASSES[used])
    probabilities = []
    for number, way in enumerate(("none", class_weight)):
        folder = tmp_path / str(number)
        model, _ = train(folder, changed(epochs=20), images=images, class_weight=way)
        probabilities.append(float(model.predict(VALUES[CLASSES == 2], verbose=0)[:, 2].mean()))
    assert probabilities[1] > probabilities[0] + 0.05
