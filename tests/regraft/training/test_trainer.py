"""The training loop, on a network of a few numbers."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from regraft.config import ClassWeight, FineTune
from regraft.training import trainer as training
from regraft.training.checkpoints import Checkpoint
from regraft.training.class_weights import prior_of
from regraft.training.keras_models import Epoch, save_model, start_keras
from regraft.training.metrics import score
from regraft.training.trainer import Images, Trained, Trainer, Training

VALUES = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
CLASSES = (VALUES[:, 0] > 0).astype(int) + (VALUES[:, 1] > 0)  # three classes that can be learnt
SETTINGS = FineTune(
    mode="always",
    layers="top",
    epochs=4,
    patience=4,
    learning_rate=0.01,
    layer_decay=1.0,
    weight_decay=0.01,
    label_smoothing=0.1,
    batch_size=16,
    significance=0.05,
    max_minutes=1.0,
)


class Killed(BaseException):
    """Stands for a kill: nothing in the code may catch it."""


def changed(**settings: object) -> FineTune:
    return SETTINGS.model_copy(update=settings)


def build() -> keras.Model:
    image = keras.Input((6,))
    hidden = layers.Dropout(0.3)(layers.Dense(8, activation="relu")(image))
    return keras.Model(image, layers.Dense(3, activation="softmax")(hidden))


def read(batches, epoch):
    return (VALUES[chosen] for chosen in batches)


IMAGES = Images(read, CLASSES)


def trainer_of(model: keras.Model, *, weight_decay: float = 0.01, prior: np.ndarray | None = None) -> Trainer:
    return Trainer(
        model,
        {variable.path: 1.0 for variable in model.trainable_variables},
        weight_decay=weight_decay,
        dtype="float32",
        prior=prior,
    )


def train(
    folder: Path,
    settings: FineTune = SETTINGS,
    *,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    images: Images = IMAGES,
    class_weight: ClassWeight = "none",
) -> tuple[keras.Model, Trained]:
    start_keras(seed)
    model = build()
    trainer = trainer_of(model, prior=prior_of(class_weight, images.class_indices, 3))
    checkpoint = Checkpoint(folder / "checkpoint.npz")
    run = Training(trainer, images, IMAGES, 3, settings, class_weight=class_weight, seed=seed, checkpoint=checkpoint)
    return model, run.run(on_epoch)


def saved(model: keras.Model, folder: Path) -> bytes:
    save_model(folder / "model.keras", model)
    return (folder / "model.keras").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[bytes, Trained]:
    """The file and the curve of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    model, trained = train(folder)
    return saved(model, folder), trained


@pytest.fixture
def scores(monkeypatch) -> Callable[..., None]:
    """A function that gives the accuracies on val, from before training on."""

    def give(*accuracies: float) -> None:
        following = iter(accuracies)
        monkeypatch.setattr(training, "score", lambda *_: training.Score(next(following), 1.0))

    return give


# Steps.


def test_a_step_is_that_of_adamw_in_keras():
    start_keras(0)
    model, reference = build(), build()
    reference.set_weights(model.get_weights())
    for network in (model, reference):
        network.layers[2].rate = 0.0  # no dropout, whose state is each network's own
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    reference.compile(optimizer, keras.losses.CategoricalCrossentropy())
    trainer, targets = trainer_of(model, weight_decay=0.1), np.eye(3, dtype=np.float32)[CLASSES]
    for _ in range(5):
        loss = trainer.step(VALUES, targets, 0.01)
        assert loss == pytest.approx(reference.train_on_batch(VALUES, targets), rel=1e-5)
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)  # both in float32, in another order


def test_weight_decay_shrinks_kernels_and_not_biases():
    start_keras(0)
    model = build()
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    # Equal kernels and equal targets for all classes: there is no gradient.
    trainer_of(model, weight_decay=0.5).step(VALUES[:4], np.full((4, 3), 1 / 3, np.float32), 0.1)
    assert [weight.flat[0] for weight in model.get_weights()] == pytest.approx([0.95, 1.0, 0.95, 1.0], abs=1e-4)


def test_a_rate_of_zero_leaves_a_variable_as_it_is():
    start_keras(0)
    model = build()
    before = model.get_weights()
    rates = {variable.path: float("dense_1" in variable.path) for variable in model.trainable_variables}
    Trainer(model, rates, weight_decay=0.1, dtype="float32").step(VALUES, np.eye(3, dtype=np.float32)[CLASSES], 0.1)
    assert [np.array_equal(*pair) for pair in zip(model.get_weights(), before, strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_state_that_is_restored_gives_the_same_next_step():
    start_keras(0)
    trainer, targets = trainer_of(build()), np.eye(3, dtype=np.float32)[CLASSES]
    trainer.step(VALUES, targets, 0.01)
    state = trainer.state()
    losses = [trainer.step(VALUES, targets, 0.01) for _ in range(3)]
    trainer.restore(state)
    assert [trainer.step(VALUES, targets, 0.01) for _ in range(3)] == losses


# The schedule and the order.


def test_the_learning_rate_warms_up_for_an_epoch_and_falls_to_zero():
    shares = [training._schedule(done / 10, 5) for done in range(51)]
    assert shares[0] == 0
    assert shares[10] == 1
    assert np.all(np.diff(shares[:11]) > 0)
    assert np.all(np.diff(shares[10:]) < 0)
    assert shares[50] == pytest.approx(0)


def test_every_image_is_visited_once_per_epoch_in_a_new_order(tmp_path):
    visited: dict[int, list[list[int]]] = {}

    def noted(batches, epoch):
        visited[epoch] = [list(chosen) for chosen in batches]
        return read(batches, epoch)

    train(tmp_path, changed(epochs=2, patience=2), images=Images(noted, CLASSES))
    assert [len(batch) for batch in visited[1]] == [16, 16, 8]
    assert [sorted(chain.from_iterable(visited[epoch])) for epoch in (1, 2)] == [list(range(40))] * 2
    assert visited[1] != visited[2]
    assert all(batch == sorted(batch) for batch in visited[1])  # as they lie in the store


# Which epoch is left in the network.


@pytest.mark.parametrize(
    ("accuracies", "best"), [((0.1, 0.5, 0.9, 0.8), 2), ((0.9, 0.5, 0.6, 0.7), 0), ((0.1, 0.5, 0.5, 0.5), 1)]
)
def test_the_weights_of_the_best_epoch_are_left_in_the_network(tmp_path, scores, accuracies, best):
    scores(*accuracies)
    settings, seen = changed(epochs=3), []
    weights: list[list[np.ndarray]] = []

    def note(epoch: Epoch) -> None:
        seen.append(epoch)
        weights.append(model.get_weights())

    start_keras(0)
    model = build()
    run = Training(
        trainer_of(model),
        IMAGES,
        IMAGES,
        3,
        settings,
        class_weight="none",
        seed=0,
        checkpoint=Checkpoint(tmp_path / "checkpoint.npz"),
    )
    weights.append(model.get_weights())
    trained = run.run(note)
    assert trained.best.epoch == best
    assert trained.curve[1:] == seen
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), weights[best], strict=True))


@pytest.mark.parametrize(
    ("accuracies", "patience", "epochs"),
    [((0.5, 0.4, 0.4), 2, 2), ((0.5, 0.4, 0.6, 0.5, 0.5), 2, 4), ((0.5, 0.6, 0.7, 0.7), 1, 3)],
)
def test_training_stops_when_patience_is_over(tmp_path, scores, accuracies, patience, epochs):
    scores(*accuracies)
    assert train(tmp_path, changed(epochs=9, patience=patience))[1].curve[-1].epoch == epochs


def test_the_curve_starts_before_training_and_the_predictions_are_those_of_its_ends(tmp_path):
    model, trained = train(tmp_path)
    assert (trained.curve[0].epoch, trained.curve[0].train_loss) == (0, None)
    assert trained.best.epoch > 0
    assert np.array_equal(trained.after, model.predict(VALUES, verbose=0).argmax(axis=1))
    assert trained.best.val.accuracy == np.mean(trained.after == CLASSES)
    assert trained.curve[0].val.accuracy == np.mean(trained.before == CLASSES)
    assert trained.best.val == score(CLASSES, model.predict(VALUES, verbose=0))


# Going on.


@pytest.mark.parametrize("killed_after", [1, 2, 4])
def test_after_a_kill_the_training_goes_on_and_ends_in_the_same_bytes(undisturbed, tmp_path, killed_after):
    def kill(epoch: Epoch) -> None:
        if epoch.epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, on_epoch=kill)
    later: list[int] = []
    model, trained = train(tmp_path, on_epoch=lambda epoch: later.append(epoch.epoch))
    expected, reference = undisturbed
    assert later == list(range(killed_after + 1, 5))
    assert saved(model, tmp_path) == expected
    assert (trained.curve, trained.best) == (reference.curve, reference.best)
    assert np.array_equal(trained.before, reference.before)
    assert np.array_equal(trained.after, reference.after)


def test_a_kill_within_an_epoch_costs_that_epoch_only(undisturbed, tmp_path):
    def killed(batches, epoch):
        for number, chosen in enumerate(batches):
            if (epoch, number) == (3, 1):
                raise Killed
            yield VALUES[chosen]

    with pytest.raises(Killed):
        train(tmp_path, images=Images(killed, CLASSES))
    later: list[int] = []
    model, _ = train(tmp_path, on_epoch=lambda epoch: later.append(epoch.epoch))
    assert later == [3, 4]
    assert saved(model, tmp_path) == undisturbed[0]


@pytest.mark.parametrize("damage", [lambda contents: contents[:-100], lambda contents: b"", lambda contents: b"no zip"])
def test_a_damaged_checkpoint_is_not_used(undisturbed, tmp_path, damage):
    train(tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(damage(path.read_bytes()))
    later: list[int] = []
    model, _ = train(tmp_path, on_epoch=lambda epoch: later.append(epoch.epoch))
    assert later == [1, 2, 3, 4]
    assert saved(model, tmp_path) == undisturbed[0]


def test_another_seed_gives_other_bytes(undisturbed, tmp_path):
    assert saved(train(tmp_path, seed=1)[0], tmp_path) != undisturbed[0]


def test_timing_a_few_steps_changes_nothing(undisturbed, tmp_path):
    start_keras(0)
    model = build()
    run = Training(
        trainer_of(model),
        IMAGES,
        IMAGES,
        3,
        SETTINGS,
        class_weight="none",
        seed=0,
        checkpoint=Checkpoint(tmp_path / "checkpoint.npz"),
    )
    assert run.seconds() > 0
    run.run(lambda _: None)
    assert saved(model, tmp_path) == undisturbed[0]


# Rare classes.


@pytest.mark.parametrize("class_weight", ["balanced", "logit_adjustment"])
def test_a_rare_class_is_named_more_often_when_it_is_helped(tmp_path, class_weight):
    kept = np.flatnonzero((CLASSES != 2) | (np.cumsum(CLASSES == 2) <= 2))
    images = Images(lambda batches, epoch: (VALUES[kept[chosen]] for chosen in batches), CLASSES[kept])
    probabilities = []
    for number, way in enumerate(("none", class_weight)):
        folder = tmp_path / str(number)
        model, _ = train(folder, changed(epochs=20, patience=20), images=images, class_weight=way)
        probabilities.append(float(model.predict(VALUES[CLASSES == 2], verbose=0)[:, 2].mean()))
    assert probabilities[1] > probabilities[0] + 0.05
