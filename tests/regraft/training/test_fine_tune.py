import re
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest

from regraft.config import ClassWeight, FineTune
from regraft.photos.images import Threads
from regraft.training import fine_tune as module
from regraft.training.checkpoints import Checkpoint, open_checkpoint
from regraft.training.class_weights import objective_of
from regraft.training.fine_tune import FineTuned, facts_of, fine_tune, switched_off
from regraft.training.inputs import cached_activations, live_pixels, training_images
from regraft.training.keep_test import Answers
from regraft.training.keras_models import Epoch
from regraft.training.keras_network import to_keras
from regraft.training.metrics import Score, score
from regraft.training.network_file import read_head
from regraft.training.training_loop import Plan, Trained
from tests.support.library import FINE_TUNE, fine_tune_settings
from tests.support.networks import load_joined

ACCURACY = objective_of("none")


@pytest.fixture(scope="module")
def tune(backbone, dataset, store, views, tmp_path_factory):
    """A function that fine-tunes a network in place and returns what came of it."""

    def run(
        model, settings: FineTune = FINE_TUNE, *, class_weight: ClassWeight = "none", on_epoch=lambda _: None
    ) -> FineTuned:
        inputs_of = partial(cached_activations, activations=store.activations, views=views, seed=0)
        if settings.layers == "all":
            inputs_of = partial(live_pixels, views=views, threads=Threads(2))
        return fine_tune(
            model,
            backbone.cut,
            training_images(dataset, inputs_of),
            Plan(settings, class_weight, 0),
            checkpoint=Checkpoint(tmp_path_factory.mktemp("checkpoint") / "checkpoint.npz"),
            on_epoch=on_epoch,
        )

    return run


@pytest.fixture(scope="module")
def tuned(backbone, head, tune):
    """The weights before fine-tuning, the network after it, and what came of it."""
    model = load_joined(backbone, head)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    return before, model, tune(model)


def changed(before: dict[str, list[np.ndarray]], model) -> set[str]:
    return {
        layer.name
        for layer in model.layers
        if not all(np.array_equal(*pair) for pair in zip(layer.get_weights(), before[layer.name], strict=True))
    }


# What is trained.


def test_the_curve_starts_at_the_head_alone(tuned, head, features):
    values, class_indices = features.of("val")
    expected = score(class_indices, to_keras(read_head(head)).predict(values, verbose=0))
    # Activations are stored in half precision: 2 ** -11 of their size, through the rest of the network.
    assert tuned[2].curve[0].val.log_loss == pytest.approx(expected.log_loss, abs=0.01)


def test_what_is_above_the_cut_is_trained(tuned):
    before, model, _ = tuned
    assert {"block14_expand_conv", "top_conv", "head_logits"} <= changed(before, model)


def test_what_is_below_the_cut_stays_as_it_was(tuned, backbone):
    before, model, _ = tuned
    names = [layer.name for layer in model.layers]
    assert changed(before, model).isdisjoint(names[: names.index(backbone.cut) + 1])


def test_batchnorm_keeps_its_statistics_scale_and_shift(tuned):
    before, model, _ = tuned
    assert [name for name in changed(before, model) if name.endswith("_bn")] == []


def test_fine_tuning_helps_on_photos_that_differ_by_colour(tuned):
    *_, result = tuned
    assert result.is_used
    assert result.curve[-1].val.accuracy > result.curve[0].val.accuracy


def test_fine_tuning_gives_equal_weights_twice(tuned, head, backbone, tune):
    _, model, _ = tuned
    again = load_joined(backbone, head)
    tune(again)
    assert all(np.array_equal(*pair) for pair in zip(again.get_weights(), model.get_weights(), strict=True))


def test_layers_between_the_cut_and_the_named_layer_stay_as_they_were(head, backbone, tune):
    model = load_joined(backbone, head)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    tune(model, fine_tune_settings(layers="block14_add", epochs=1))
    assert changed(before, model) == {
        "block15_expand_conv",
        "block15_depthwise_conv",
        "block15_project_conv",
        "top_conv",
        "head_logits",
    }


def test_all_layers_are_trained_from_pixels(backbone, head, tune):
    model = load_joined(backbone, head)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    result = tune(model, fine_tune_settings(layers="all", epochs=1))
    assert changed(before, model) == {name for name, weights in before.items() if weights and not name.endswith("_bn")}
    assert result.as_report()["trained"] == ("all" if result.is_used else "head")


# What comes of it.


def answers(predicted: np.ndarray) -> Answers:
    return Answers(predicted, np.full(len(predicted), 0.5))


def judged(only_before: int, only_after: int, **settings: object) -> tuple[bool, str]:
    """What is said of a network that is right on some images only before training, and on some only after it."""
    classes = np.zeros(only_before + only_after, int)
    wrong = np.repeat([0, 1], [only_before, only_after])
    scores = [Score(accuracy, 0.5, 0.25, 1.5) for accuracy in (0.8, 0.9)]
    curve = [Epoch(0, None, scores[0]), Epoch(1, 1.0, scores[1])]
    result = module._judged(
        Trained(curve, answers(wrong), answers(1 - wrong)), classes, fine_tune_settings(**settings), ACCURACY
    )
    return result.is_used, result.reason


@pytest.mark.parametrize(
    ("only_before", "only_after", "expected"), [(0, 4, False), (0, 5, True), (5, 14, True), (9, 14, False)]
)
@pytest.mark.parametrize("mode", ["always", "auto"])
def test_it_is_used_only_if_the_gain_is_more_than_chance(only_before, only_after, expected, mode):
    is_used, words = judged(only_before, only_after, mode=mode, significance=0.05)
    assert is_used is expected
    assert words.startswith(
        f"The fine-tuned network is {'' if expected else 'not '}used: on val it has accuracy 0.900 (log loss 0.500) "
        f"after epoch 1, the head alone accuracy 0.800 (log loss 0.500); {only_after} val photos are right only with"
    )
    assert re.search(r"McNemar test of accuracy: p = 0\.\d+\); its log loss is not shown to be worse \(", words)
    assert words.endswith("); fine_tune.significance is 0.05.")


@pytest.mark.parametrize(
    ("only_before", "only_after", "expected"), [(7, 8, True), (0, 1, True), (7, 7, False), (0, 0, False)]
)
def test_with_the_largest_significance_any_gain_is_enough(only_before, only_after, expected):
    assert judged(only_before, only_after, significance=0.5)[0] is expected


def test_where_rare_classes_are_helped_macro_recall_decides():
    # Three photos of a class of twelve are lost, both of a class of two are won.
    classes = np.repeat([0, 1], [12, 2])
    before, after = np.where(classes == 0, 0, 2), np.where(np.arange(14) < 3, 2, classes)
    scores = [score(classes, np.eye(3)[predicted]) for predicted in (before, after)]
    curve = [Epoch(0, None, scores[0]), Epoch(1, 1.0, scores[1])]
    for objective, expected in ((ACCURACY, False), (objective_of("balanced"), True)):
        settings = fine_tune_settings(significance=0.25)
        result = module._judged(Trained(curve, answers(before), answers(after)), classes, settings, objective)
        assert result.is_used is expected
        assert f"on val it has {objective.words(scores[1])} after epoch 1" in result.reason


def test_auto_does_not_train_where_no_gain_could_be_told_from_chance(head, backbone, tune):
    epochs: list[Epoch] = []
    settings = fine_tune_settings(mode="auto", significance=0.001)
    result = tune(load_joined(backbone, head), settings, class_weight="balanced", on_epoch=epochs.append)
    assert (result.is_used, result.curve, epochs) == (False, [], [])
    assert result.objective == objective_of("balanced")
    assert re.match(r"Not fine-tuned: the head is wrong on \d of 9 val photos\. .*0\.001 it takes 10\.", result.reason)


def test_auto_does_not_train_where_it_would_take_too_long(head, backbone, tune):
    result = tune(load_joined(backbone, head), fine_tune_settings(mode="auto", max_minutes=1e-6))
    assert (result.is_used, result.curve) == (False, [])
    assert re.match(
        r"Not fine-tuned: 2 epochs would take about .* minutes here, and fine_tune\.max_minutes is", result.reason
    )


def test_auto_trains_as_always_does_where_it_trains(tuned, head, backbone, tune):
    _, model, expected = tuned
    again = load_joined(backbone, head)
    result = tune(again, fine_tune_settings(mode="auto"))
    assert result.curve == expected.curve
    assert all(np.array_equal(*pair) for pair in zip(again.get_weights(), model.get_weights(), strict=True))


def test_the_report_says_what_was_done_and_why(tuned):
    *_, result = tuned
    report = result.as_report()
    assert report == {
        "mode": "always",
        "layers": "top",
        "is_used": True,
        "trained": "top",
        "objective": asdict(ACCURACY),
        "reason": result.reason,
        "val": asdict(result.curve[2].val),
        "epochs_run": 2,
        "head_alone": asdict(result.curve[0].val),
        "test": asdict(result.test),
    }


def test_without_fine_tuning_the_report_says_so():
    assert switched_off(fine_tune_settings(mode="off"), "none").as_report() == {
        "mode": "off",
        "layers": "top",
        "is_used": False,
        "trained": "head",
        "objective": asdict(ACCURACY),
        "reason": "Fine-tuning is off (fine_tune.mode in params.yaml).",
    }


# Which checkpoint belongs to which training.


def test_whatever_determines_a_training_is_in_the_name_of_its_checkpoint(backbone, views, tmp_path):
    files = [tmp_path / "head.npz", tmp_path / "dataset.parquet"]
    for file in files:
        file.write_text(file.name)

    def name(backbone=backbone, views=views, settings=FINE_TUNE, class_weight: ClassWeight = "none", seed=0) -> str:
        plan = Plan(settings, class_weight, seed)
        return open_checkpoint(tmp_path, facts_of(backbone, views, plan, files=files)).path.name

    names = [
        name(),
        name(backbone=replace(backbone, wanted_cut="block12_add")),
        name(backbone=replace(backbone, weights_digest="random")),
        name(views=replace(views, count=2)),
        name(settings=fine_tune_settings(learning_rate=0.002)),
        name(class_weight="balanced"),
        name(seed=1),
    ]
    assert name() == names[0]
    for file in files:
        file.write_text("other")
        names.append(name())
    assert len(set(names)) == len(names)
