from functools import partial

import numpy as np
import pytest

from regraft.core.config import FineTune
from regraft.photos.base_record import record_of
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.left_out import Today
from regraft.photos.sample import training_sample
from regraft.training import fine_tune, training_loop
from regraft.training.fine_tune import (
    ALPHAS,
    between,
    blend,
    choose,
    start_trainer,
    warm_photos,
    why_not_to_train,
)
from regraft.training.metrics import Score, objective_of, score
from regraft.training.network_file import read_head, start_keras
from regraft.training.trainer import Images
from regraft.training.training_loop import Checkpoint, Plan, Training, cached_activations, training_images
from tests.regraft.photos.test_base_record import RAW, dataset, digest, many, shuffled
from tests.support.library import FINE_TUNE, fine_tune_settings
from tests.support.networks import CLASSES, IMAGES, VALUES, build_small, load_joined, read_values, trainer_of

ACCURACY = objective_of("none")


@pytest.fixture(scope="module", autouse=True)
def _small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop, "BATCH_SIZE", 6)
        yield


# What is trained.


@pytest.fixture(scope="module")
def begin(backbone, dataset, store, views, tmp_path_factory):
    """A function that begins to fine-tune a network in place."""

    def run(model, settings: FineTune = FINE_TUNE) -> Training:
        inputs_of = partial(cached_activations, activations=store.activations, views=views, seed=0)
        checkpoint = Checkpoint(tmp_path_factory.mktemp("checkpoint") / "checkpoint.npz")
        trainer = start_trainer(model, backbone.cut, settings.layers)
        return Training(trainer, training_images(dataset, inputs_of), Plan(settings, "none", 0), checkpoint)

    return run


@pytest.fixture(scope="module")
def tuned(backbone, head, begin):
    """The weights before fine-tuning, the network after it, and the learning curve."""
    model = load_joined(backbone, head)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    return before, model, begin(model).run(lambda _: None)


def changed(before: dict[str, list[np.ndarray]], model) -> set[str]:
    return {
        layer.name
        for layer in model.layers
        if not all(np.array_equal(*pair) for pair in zip(layer.get_weights(), before[layer.name], strict=True))
    }


def test_layers_above_the_cut_are_trained_without_batchnorm_and_none_below(tuned, backbone):
    before, model, _ = tuned
    trained, names = changed(before, model), [layer.name for layer in model.layers]
    assert {"block14_expand_conv", "top_conv", "head_logits"} <= trained
    assert trained.isdisjoint(names[: names.index(backbone.cut) + 1])
    assert [name for name in trained if name.endswith("_bn")] == []


def test_the_curve_starts_at_the_head_alone_and_gets_better(tuned, head, features):
    values, class_indices = features.of("val")
    expected, curve = score(class_indices, read_head(head).probabilities(values)), tuned[2]
    # Activations are stored in half precision: 2 ** -11 of their size, through the rest of the network.
    assert curve[0].val.log_loss == pytest.approx(expected.log_loss, abs=0.01)
    assert curve[-1].val.accuracy > curve[0].val.accuracy


def test_auto_does_not_train_where_it_would_take_too_long(head, backbone, begin):
    settings = fine_tune_settings(mode="auto", max_minutes=1e-6)
    words = why_not_to_train(begin(load_joined(backbone, head), settings), settings)
    assert words
    assert words.startswith("Not fine-tuned: 2 epochs would take about ")
    assert words.endswith("fine_tune.max_minutes is 1e-06.")


# Blending.


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


def has_weights(trainer, weights) -> bool:
    return all(np.array_equal(*pair) for pair in zip(trainer.weights(), weights, strict=True))


def test_the_chosen_weights_are_in_the_network(trainer, ends):
    result = blend(trainer, ends, IMAGES, ACCURACY, usual=0.75)
    assert list(result.scores) == list(ALPHAS)
    assert has_weights(trainer, between(ends[0], ends[1], result.alpha))
    assert score(CLASSES, trainer.predict(IMAGES)) == result.scores[result.alpha]


@pytest.mark.parametrize("is_better", ["before", "after"])
def test_the_ends_are_what_they_were_to_the_bit(trainer, ends, is_better):
    worse = [array + 50 * np.sign(array) for array in ends[0]]
    order = (ends[0], worse) if is_better == "before" else (worse, ends[0])
    assert blend(trainer, order, IMAGES, ACCURACY, usual=0.75).alpha == (0.0 if is_better == "before" else 1.0)
    assert has_weights(trainer, ends[0])


def test_without_val_photos_the_usual_network_is_used(trainer, ends):
    result = blend(trainer, ends, Images(read_values, CLASSES[:0]), ACCURACY, usual=0.5)
    assert (result.alpha, result.scores, result.images) == (0.5, {}, 0)
    assert has_weights(trainer, between(ends[0], ends[1], 0.5))
    (half,) = between([np.array([1, 2], np.float32)], [np.array([3, 6], np.float32)], 0.5)
    assert (half.dtype, half.tolist()) == (np.float32, [2, 4])


TRUE = np.repeat([0, 1], [180, 20])


def predicted(of_first: float, of_second: float, *, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Probabilities of which the right class has so much, by class."""
    right = np.where(TRUE == 0, of_first, of_second) + noise * np.random.default_rng(seed).normal(size=len(TRUE))
    right = np.clip(right, 0.01, 0.99)
    return np.where(np.eye(2)[TRUE] == 1, right[:, None], 1 - right[:, None])


@pytest.mark.parametrize("gain", [-0.1, 0.1])
def test_another_network_than_the_usual_one_is_used_only_if_it_is_shown_to_be_better(gain):
    networks = {0.0: predicted(0.7 + gain, 0.7 + gain), 0.75: predicted(0.7, 0.7, noise=0.1)}
    assert choose(networks, TRUE, ACCURACY, usual=0.75).alpha == (0.0 if gain > 0 else 0.75)


def test_where_rare_classes_are_helped_the_balanced_log_loss_decides():
    networks = {0.0: predicted(0.8, 0.4, noise=0.01), 0.75: predicted(0.7, 0.7, noise=0.01, seed=1)}
    assert [choose(networks, TRUE, objective_of(way), usual=0.0).alpha for way in ("none", "balanced")] == [0.0, 0.75]


# The report.

SCORES = {0.0: Score(0.8, 0.5, 0.25, 1.5), 0.75: Score(0.9, 0.4, 0.5, 1.0), 1.0: Score(0.85, 0.6, 0.5, 1.2)}


# The photos of a warm run.

BASE = record_of(Today(dataset()), {}, "", is_off=False)


@pytest.fixture
def chosen(monkeypatch):
    def chosen(today, replay: int = 2, per_class: int = 1):
        monkeypatch.setattr(fine_tune, "REPLAY", replay)
        monkeypatch.setattr(fine_tune, "REPLAY_PER_CLASS", per_class)
        return warm_photos(today, BASE)

    return chosen


def test_nothing_new_nothing_is_visited(chosen):
    assert (len(chosen(dataset()).photos), chosen(dataset()).new) == (0, 0)
    assert chosen(dataset([*range(100), 105, 110])).new == 0  # of test and val


def test_new_photos_are_visited_with_so_many_old_ones_each(chosen):
    photos = chosen(dataset(range(104)))
    assert (photos.new, photos.replayed) == (3, 6)
    assert photos.photos.rows.digest.tolist() == [digest(number) for number in (1, 2, 3, 4, 6, 7, 101, 102, 103)]
    assert set(photos.photos.rows.split) == {"train"}


@pytest.mark.parametrize(("replay", "per_class", "old"), [(0, 5, 10), (1000, 1, 80), (0, 1000, 80)])
def test_of_each_class_there_are_enough(chosen, replay, per_class, old):
    photos = chosen(dataset(range(104)), replay, per_class)
    assert photos.replayed == old
    assert set(photos.photos.rows.class_name) == {"cat", "dog"}


def test_five_new_photos_do_not_bring_photos_of_a_thousand_classes_back():
    names, photos = [f"class {number:04}" for number in range(1000)], many(range(5000))
    indices = [int(each[:8], 16) % 1000 for each in photos.rows.digest]
    rows = photos.rows.assign(split="train", class_index=indices, class_name=[names[index] for index in indices])
    today = Dataset(rows.astype(COLUMNS), names, RAW)
    record = record_of(Today(today.with_rows(today.rows[5:])), {}, "", is_off=False)
    found = warm_photos(today, record)
    assert found.new == 5
    assert 320 <= found.replayed <= 360  # 4,995 without a limit
    fewer = today.with_rows(today.rows.drop(index=range(10, 5000, 50)).reset_index(drop=True))
    stayed = set(warm_photos(fewer, record).photos.rows.digest)
    assert len(set(found.photos.rows.digest) - stayed) <= 20  # of the 100 that went about 7 were visited


def test_another_label_and_another_split_make_a_photo_new_and_one_that_is_gone_is_not_visited(chosen):
    today = dataset(range(3, 100), class_name={3: "cat"}, split={10: "train"})
    photos = chosen(today)
    assert (photos.new, photos.replayed) == (2, 4)
    assert photos.photos.rows.digest.tolist() == [digest(number) for number in (3, 4, 6, 7, 8, 10)]


def test_a_warm_run_of_a_sample_visits_new_photos_and_none_that_was_left_out():
    before, today = many(range(1000)), many(range(1040), class_name={3: "cat"})
    record = record_of(Today(before), {}, "", is_off=False, max_photos=300)
    photos = warm_photos(training_sample(today, 300), record)
    came, visited = {shuffled(number) for number in range(1000, 1040)}, set(photos.photos.rows.digest)
    assert 0 < photos.new == len(visited & (came | {shuffled(3)}))
    assert visited <= set(record.photos.rows.digest) | came
