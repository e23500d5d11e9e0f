import re
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest

from regraft.core.config import ClassWeight, FineTune
from regraft.training.blending import Blend
from regraft.training.checkpoints import Checkpoint, open_checkpoint
from regraft.training.class_weights import objective_of
from regraft.training.fine_tune import facts_of, fine_tuned, start_trainer, switched_off, why_not_to_train
from regraft.training.inputs import cached_activations, training_images
from regraft.training.keras_models import Epoch
from regraft.training.keras_network import to_keras
from regraft.training.metrics import Score, score
from regraft.training.network_file import read_head
from regraft.training.training_loop import Plan, Training
from tests.support.library import FINE_TUNE, fine_tune_settings
from tests.support.networks import load_joined

ACCURACY = objective_of("none")


@pytest.fixture(scope="module")
def begin(backbone, dataset, store, views, tmp_path_factory):
    """A function that begins to fine-tune a network in place."""

    def run(model, settings: FineTune = FINE_TUNE) -> Training:
        inputs_of = partial(cached_activations, activations=store.activations, views=views, seed=0)
        checkpoint = Checkpoint(tmp_path_factory.mktemp("checkpoint") / "checkpoint.npz")
        trainer = start_trainer(model, backbone.cut, settings)
        return Training(trainer, training_images(dataset, inputs_of), Plan(settings, "none", 0), checkpoint)

    return run


@pytest.fixture(scope="module")
def tune(begin):
    """A function that fine-tunes a network in place and returns the learning curve."""
    return lambda model, settings=FINE_TUNE: begin(model, settings).run(lambda _: None)


@pytest.fixture(scope="module")
def tuned(backbone, head, tune):
    """The weights before fine-tuning, the network after it, and the learning curve."""
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
    assert tuned[2][0].val.log_loss == pytest.approx(expected.log_loss, abs=0.01)


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
    *_, curve = tuned
    assert curve[-1].val.accuracy > curve[0].val.accuracy


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
        *(f"block15_{part}_conv" for part in ("expand", "depthwise", "project")),
        "top_conv",
        "head_logits",
    }


# What comes of it.

SCORES = {0.0: Score(0.8, 0.5, 0.25, 1.5), 0.75: Score(0.9, 0.4, 0.5, 1.0), 1.0: Score(0.85, 0.6, 0.5, 1.2)}


@pytest.mark.parametrize(
    ("alpha", "used", "why", "trained"),
    [
        (
            0.0,
            "Shipped weights: head-only.",
            "is usual with so many photos, and no other is shown",
            "head",
        ),
        (
            0.75,
            "Shipped weights: 75 % fine-tuned, 25 % head-only.",
            "has the lowest",
            "top",
        ),
        (
            1.0,
            "Shipped weights: fine-tuned.",
            "is usual with so many photos, and no other is shown",
            "top",
        ),
    ],
)
def test_what_is_used_is_said_with_the_figures_of_both_ends(alpha, used, why, trained):
    result = fine_tuned(Blend(alpha, SCORES, 60), [], fine_tune_settings(), ACCURACY)
    figures = ACCURACY.words(SCORES[alpha])
    assert result.reason.startswith(f"{used} On 60 val photos they have {figures}, the head alone ")
    assert (
        f"accuracy 0.800 (log loss 0.500), the fine-tuned network accuracy 0.850 (log loss 0.600). Of 3 mixtures "
        f"this one {why}" in result.reason
    )
    assert (result.is_used, result.trained) == (alpha > 0, trained)


def test_where_rare_classes_are_helped_the_words_name_the_figures_that_decide():
    balanced = objective_of("balanced")
    words = fine_tuned(Blend(0.75, SCORES, 60), [], fine_tune_settings(), balanced).reason
    assert balanced.words(SCORES[0.75]) in words
    assert "macro recall" in words


def test_without_val_photos_the_words_say_so():
    words = fine_tuned(Blend(1.0, {}, 0), [], fine_tune_settings(), ACCURACY).reason
    assert words == "Shipped weights: fine-tuned, as is usual: there is no val photo to choose with."


def test_auto_does_not_train_where_it_would_take_too_long(head, backbone, begin):
    settings = fine_tune_settings(mode="auto", max_minutes=1e-6)
    words = why_not_to_train(begin(load_joined(backbone, head), settings), settings)
    assert words
    assert re.match(r"Not fine-tuned: 2 epochs would take about .* minutes here, and fine_tune\.max_minutes is", words)


def test_the_report_says_what_was_done_and_why():
    curve = [Epoch(number, None, SCORES[0.0]) for number in range(3)]
    result = fine_tuned(Blend(0.75, SCORES, 60), curve, fine_tune_settings(), ACCURACY)
    assert result.as_report() == {
        "mode": "always",
        "budget": "balanced",
        "layers": "top",
        "is_used": True,
        "trained": "top",
        "objective": asdict(ACCURACY),
        "reason": result.reason,
        "epochs_run": 2,
        "alpha": 0.75,
        "val_images": 60,
        "tried": [{"alpha": alpha, **asdict(figures)} for alpha, figures in SCORES.items()],
    }


def test_without_fine_tuning_the_report_says_so():
    report = switched_off(fine_tune_settings(mode="off"), "none").as_report()
    assert (report["is_used"], report["trained"], report["epochs_run"]) == (False, "head", 0)
    assert report["reason"] == "Fine-tuning is off (fine_tune.mode in params.yaml)."


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
