import tempfile
import time

import keras
import numpy as np
import pytest
from keras import layers

from regraft.files import write_text
from regraft.metrics import Score, score
from regraft.networks import (
    batches_in_order,
    batches_of,
    compile_classifier,
    load_model,
    save_model,
    start_keras,
    train,
)

VALUES = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
CLASSES = (VALUES[:, 0] > 0).astype(int) + (VALUES[:, 1] > 0)  # three classes that can be learnt


def build() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(3, activation="softmax"),
        ]
    )


def trained(seed: int) -> keras.Model:
    start_keras(seed)
    model = build()
    compile_classifier(model, learning_rate=0.01, weight_decay=0.01, label_smoothing=0.1)
    batches = batches_of(lambda chosen, _: VALUES[chosen], CLASSES, num_classes=3, batch_size=16, seed=seed)
    train(
        model,
        batches,
        lambda: score(CLASSES, model.predict(VALUES, verbose=0)),
        epochs=2,
        patience=9,
        is_better=Score.is_better_than,
        on_epoch=lambda _: None,
    )
    return model


# Repeatable.


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> bytes:
    """The file of a model that was trained with seed 0."""
    path = tmp_path_factory.mktemp("first") / "model.keras"
    save_model(path, trained(0))
    return path.read_bytes()


@pytest.mark.parametrize(("seed", "expected"), [(0, True), (1, False)])
def test_two_trainings_give_equal_bytes_if_the_seed_is_the_same(first, tmp_path, seed, expected):
    build().predict(VALUES, verbose=0)  # whatever this process does in between
    save_model(tmp_path / "model.keras", trained(seed))
    assert ((tmp_path / "model.keras").read_bytes() == first) is expected


# The training loop.


class Trainee:
    """A model of one weight, the number of its epochs; after each it is right about a given share of the images."""

    def __init__(self, accuracies: list[float]) -> None:
        self.accuracies, self.weights, self.stop_training = accuracies, [np.array(0)], False

    def score(self) -> Score:
        accuracy = self.accuracies[int(self.weights[0])]
        return Score(accuracy, 1 - accuracy)

    def fit(self, batches: object, *, epochs: int, callbacks: list, **_: object) -> None:
        for epoch in range(epochs):
            self.weights = [self.weights[0] + 1]
            callbacks[0].on_epoch_end(epoch, {"loss": 1.0 / (epoch + 1)})
            if self.stop_training:
                break

    def get_weights(self) -> list[np.ndarray]:
        return self.weights

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self.weights = weights


def run(accuracies: list[float], *, patience: int = 9, on_epoch=lambda _: None):
    """Train with the given accuracies on val, the first one before training; return model, curve and best epoch."""
    model = Trainee(accuracies)
    return model, *train(
        model,  # type: ignore[arg-type]
        None,
        model.score,
        epochs=len(accuracies) - 1,
        patience=patience,
        is_better=Score.is_better_than,
        on_epoch=on_epoch,
    )


@pytest.mark.parametrize(
    ("accuracies", "best_epoch"),
    [([0.1, 0.5, 0.9, 0.8], 2), ([0.9, 0.5, 0.6], 0), ([0.1, 0.2, 0.3], 2), ([0.1, 0.5, 0.5], 1)],
)
def test_the_weights_of_the_best_epoch_are_left_in_the_model(accuracies, best_epoch):
    model, _, best = run(accuracies)
    assert (best.epoch, model.weights) == (best_epoch, [best_epoch])


@pytest.mark.parametrize(
    ("accuracies", "patience", "epochs"),
    [([0.5, 0.4, 0.4, 0.4, 0.4], 2, 2), ([0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 2, 4), ([0.5, 0.6, 0.7, 0.8], 1, 3)],
)
def test_training_stops_when_patience_is_over(accuracies, patience, epochs):
    _, curve, _ = run(accuracies, patience=patience)
    assert curve[-1].epoch == epochs


def test_the_curve_starts_before_training():
    _, curve, _ = run([0.1, 0.2, 0.3])
    assert [(epoch.epoch, epoch.train_loss, epoch.val.accuracy) for epoch in curve] == [
        (0, None, 0.1),
        (1, 1.0, 0.2),
        (2, 0.5, 0.3),
    ]


def test_every_epoch_is_reported():
    reported = []
    _, curve, _ = run([0.1, 0.2, 0.3], on_epoch=reported.append)
    assert reported == curve[1:]


def test_the_report_of_a_training_is_that_of_its_best_epoch():
    _, curve, best = run([0.1, 0.6, 0.3])
    report = best.as_report(epochs_run=curve[-1].epoch)
    assert (report["val"]["accuracy"], report["best_epoch"], report["epochs_run"]) == (0.6, 1, 2)


def test_weight_decay_shrinks_kernels_and_not_biases():
    model = build()
    compile_classifier(model, learning_rate=0.1, weight_decay=0.5, label_smoothing=0.0)
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    model.optimizer.apply_gradients((np.zeros(variable.shape), variable) for variable in model.trainable_variables)
    # AdamW without a gradient: w - learning_rate * weight_decay * w.
    assert [weight.flat[0] for weight in model.get_weights()] == pytest.approx([0.95, 1.0, 0.95, 1.0])


# Batches.


def visited(batches) -> list[int]:
    return [int(value) for index in range(len(batches)) for value in batches[index][0]]


def numbers(count: int, *, seed: int = 0):
    return batches_of(lambda chosen, _: chosen, np.arange(count), num_classes=count, batch_size=4, seed=seed)


def test_every_image_is_visited_once_per_epoch():
    batches = numbers(10)
    assert (sorted(visited(batches)), [len(batches[index][0]) for index in range(len(batches))]) == (
        [*range(10)],
        [4, 4, 2],
    )


def test_the_order_is_new_in_every_epoch():
    batches = numbers(50)
    first = visited(batches)
    batches.on_epoch_end()
    assert visited(batches) != first


def test_the_order_follows_from_the_seed():
    assert visited(numbers(50)) == visited(numbers(50)) != visited(numbers(50, seed=1))


def test_images_of_a_batch_are_read_in_the_order_of_the_store():
    # The store is on a disk, and neighbours are read fastest in order.
    batches = numbers(50)
    assert all(list(part) == sorted(part) for part in (batches[index][0] for index in range(len(batches))))


def test_targets_belong_to_their_images():
    batches = numbers(10)
    assert all((targets.argmax(axis=1) == chosen).all() for chosen, targets in (batches[index] for index in range(3)))


@pytest.mark.parametrize("count", [1, 127, 128, 129, 300])
def test_batches_for_predicting_hold_every_image_in_order(count):
    batches = batches_in_order(lambda chosen: chosen, count)
    assert [value for index in range(len(batches)) for value in batches[index][0]] == list(range(count))


# Files.


def test_a_saved_model_computes_the_same(tmp_path):
    model = build()
    save_model(tmp_path / "model.keras", model)
    assert np.array_equal(
        load_model(tmp_path / "model.keras").predict(VALUES, verbose=0), model.predict(VALUES, verbose=0)
    )


def test_saving_at_another_time_gives_equal_bytes(tmp_path, monkeypatch):
    model = build()
    save_model(tmp_path / "one.keras", model)
    tomorrow = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    save_model(tmp_path / "two.keras", model)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()


@pytest.mark.parametrize("step", ["zipfile.ZipFile.writestr", "regraft.files.os.replace"])
def test_an_error_while_saving_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    def fail(*_, **__):
        raise OSError("no space left on device")

    path, model = tmp_path / "models" / "model.keras", build()
    write_text(path, "old")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Keras leaves a temporary folder behind when it fails
    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="no space"):
        save_model(path, model)
    assert {path.name: path.read_text() for path in path.parent.iterdir()} == {"model.keras": "old"}


def test_a_file_cannot_bring_code_of_its_own(tmp_path):
    image = keras.Input((6,))
    path = tmp_path / "evil.keras"
    keras.Model(image, layers.Lambda(lambda x: x + 1)(image)).save(path)
    with pytest.raises(ValueError, match=r"(?i)lambda.*unsafe|unsafe.*lambda"):
        load_model(path)
