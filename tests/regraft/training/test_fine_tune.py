import re
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from regraft.config import ClassWeight, FineTune
from regraft.errors import InvalidParams
from regraft.photos.dataset import read_photo
from regraft.training import fine_tune as finetune
from regraft.training.batched_heads import HeadSettings
from regraft.training.checkpoints import Checkpoint, open_checkpoint
from regraft.training.fine_tune import (
    FineTuned,
    cached_activations,
    choose_layers,
    facts_of,
    fine_tune,
    join,
    learning_rates,
    live_pixels,
    switched_off,
)
from regraft.training.heads import build_head
from regraft.training.keras_models import Epoch, load_model, save_model, start_keras
from regraft.training.metrics import Score, mcnemar_test, score
from tests.support.in_keras import compile_classifier

SETTINGS = FineTune(
    mode="always",
    layers="top",
    epochs=2,
    patience=2,
    learning_rate=1e-3,
    layer_decay=1.0,
    weight_decay=0.01,
    label_smoothing=0.05,
    batch_size=6,
    significance=0.5,
    max_minutes=60.0,
)


def changed_settings(**settings: object) -> FineTune:
    return SETTINGS.model_copy(update=settings)


def curve(*scores: tuple[float, float]) -> list[Epoch]:
    return [Epoch(number, None if number == 0 else 1.0, Score(*score)) for number, score in enumerate(scores)]


def load(path: Path, backbone):
    """Return the joined network, its head read from a file as the stage does: `join` shares the layers of a head."""
    start_keras(0)
    return join(backbone, load_model(path))


@pytest.fixture(scope="module")
def head(features, tmp_path_factory) -> Path:
    """The file of a head that was hardly trained, so that there is something left to learn."""
    path = tmp_path_factory.mktemp("head") / "head.keras"
    start_keras(0)
    head = build_head(features.dim, 3, HeadSettings(0, "relu", "adamw", 0.2, 0.0003, 0.001, 0.05))
    compile_classifier(head, learning_rate=0.0003, weight_decay=0.001, label_smoothing=0.05)
    values, class_indices = features.of("train")
    head.fit(values, np.eye(3)[class_indices], batch_size=8, epochs=1, verbose=0)
    save_model(path, head)
    return path


@pytest.fixture
def tune(backbone, dataset, store, views, tmp_path):
    """A function that fine-tunes a network in place and returns what came of it."""

    def run(model, settings: FineTune = SETTINGS, *, on_epoch=lambda _: None) -> FineTuned:
        inputs_of = partial(cached_activations, activations=store.activations, views=views, seed=0)
        checkpoint = Checkpoint(tmp_path / "checkpoint.npz")
        return fine_tune(
            model,
            backbone.cut,
            dataset,
            inputs_of,
            settings,
            class_weight="none",
            seed=0,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )

    return run


@pytest.fixture(scope="module")
def tuned(backbone, dataset, head, store, views, tmp_path_factory):
    """The weights before fine-tuning, the network after it, and what came of it."""
    model = load(head, backbone)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    inputs_of = partial(cached_activations, activations=store.activations, views=views, seed=0)
    checkpoint = Checkpoint(tmp_path_factory.mktemp("tuned") / "checkpoint.npz")
    result = fine_tune(
        model,
        backbone.cut,
        dataset,
        inputs_of,
        SETTINGS,
        class_weight="none",
        seed=0,
        checkpoint=checkpoint,
        on_epoch=lambda _: None,
    )
    return before, model, result


def changed(before: dict[str, list[np.ndarray]], model) -> set[str]:
    return {
        layer.name
        for layer in model.layers
        if not all(np.array_equal(*pair) for pair in zip(layer.get_weights(), before[layer.name], strict=True))
    }


def test_the_joined_network_is_the_head_on_the_backbone(backbone, head, features, dataset, raw, preparation):
    image = preparation(read_photo(raw, dataset.photos()[0]))[None].astype(np.float32)
    joined = load(head, backbone)(image, training=False)
    # The features come from ONNX Runtime, in float32 summed in another order.
    assert np.asarray(joined) == pytest.approx(
        load_model(head).predict(features.read(np.array([0])), verbose=0), abs=1e-4
    )


# What is read.


@pytest.fixture
def seen(store, monkeypatch) -> list[bytes]:
    """The keys whose activations are read, in order; there need not be any."""
    keys: list[bytes] = []
    monkeypatch.setattr(store.activations, "read", lambda wanted: keys.extend(wanted) or np.zeros(1))
    return keys


def test_every_view_of_every_image_is_seen_equally_often(dataset, store, views, seen):
    train_set, views = dataset.of("train"), replace(views, count=2)
    inputs = cached_activations(train_set, store.activations, views, seed=0)
    for epoch in range(1, 7):
        list(inputs([np.arange(len(train_set))], epoch))
    assert set(Counter(seen).values()) == {2}
    assert len(set(seen)) == 3 * len(train_set)


def test_an_epoch_is_a_mix_of_views(dataset, store, views, seen):
    train_set = dataset.of("train")
    list(cached_activations(train_set, store.activations, views, seed=0)([np.arange(len(train_set))], 1))
    assert {key[-1] for key in seen} == {0, 1}


def test_val_images_are_seen_as_they_are_served(dataset, store, views, seen):
    val_set = dataset.of("val")
    list(cached_activations(val_set, store.activations, views, seed=0)([np.arange(len(val_set))], 1))
    assert {key[-1] for key in seen} == {0}


def test_activations_come_as_they_are_kept_in_the_order_that_was_asked_for(dataset, store, views):
    train_set = dataset.of("train")
    inputs = cached_activations(train_set, store.activations, replace(views, count=0), seed=0)
    batches = [np.array([3, 1]), np.array([2])]
    expected = [
        store.activations.read([views.key(train_set.rows.digest[number], 0) for number in batch]) for batch in batches
    ]
    for received, wanted in zip(inputs(batches, 1), expected, strict=True):
        assert received.dtype == np.float16
        assert np.array_equal(received, wanted)


def test_pixels_are_new_in_every_epoch_and_the_same_in_every_run(dataset, raw, views):
    def pixels(split, epoch: int) -> np.ndarray:
        part = dataset.of(split)
        return np.concatenate(list(live_pixels(part, raw, views, workers=2)([np.array([4, 0]), np.array([2])], epoch)))

    first = pixels("train", 1)
    assert (first.dtype, first.shape) == (np.uint8, (3, 64, 64, 3))
    assert np.array_equal(first, pixels("train", 1))
    assert all((ours != theirs).any() for ours, theirs in zip(first, pixels("train", 2), strict=True))
    assert np.array_equal(pixels("val", 1), pixels("val", 2))
    photo = dataset.of("train").photos()[4]
    assert np.array_equal(first[0], views.draw(read_photo(raw, photo), photo.digest, [1])[0])


# What is trained.


def test_the_curve_starts_at_the_head_alone(tuned, head, features):
    values, class_indices = features.of("val")
    expected = score(class_indices, load_model(head).predict(values, verbose=0))
    # Activations were kept in half precision: 2 ** -11 of their size, through the rest of the network.
    assert tuned[2].curve[0].val.log_loss == pytest.approx(expected.log_loss, abs=0.01)


def test_what_is_above_the_cut_is_trained(tuned):
    before, model, result = tuned
    assert result.best.epoch > 0
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
    assert result.is_kept
    assert result.best.val.is_better_than(result.curve[0].val)


def test_fine_tuning_gives_equal_weights_twice(tuned, head, backbone, tune):
    _, model, _ = tuned
    again = load(head, backbone)
    tune(again)
    assert all(np.array_equal(*pair) for pair in zip(again.get_weights(), model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("layers", "first"),
    [
        ("top", "block14_expand_conv"),
        ("block13_add", "block14_expand_conv"),
        ("block14_add", "block15_expand_conv"),
        ("block14_depthwise_bn", "block14_project_conv"),
        ("features", "head_logits"),
        ("all", "stem_conv"),
    ],
)
def test_what_comes_after_the_named_layer_is_trained_and_nothing_else(backbone, head, layers, first):
    model = load(head, backbone)
    network = choose_layers(model, backbone.cut, layers)
    convolutions = [layer.name for layer in model.layers if layer.weights and not layer.name.endswith("_bn")]
    trained = [variable.path.split("/")[0] for variable in network.trainable_variables]
    assert list(dict.fromkeys(trained)) == convolutions[convolutions.index(first) :]
    assert network.input_shape[1:] == (
        (64, 64, 3) if layers == "all" else model.get_layer(backbone.cut).output.shape[1:]
    )


@pytest.mark.parametrize("layers", ["block99", "block13_project_bn", "stem_conv", "head_logits", "probabilities"])
def test_a_layer_that_does_not_exist_or_lies_below_the_cut_is_refused_with_what_is_possible(backbone, head, layers):
    with pytest.raises(InvalidParams) as error:
        choose_layers(load(head, backbone), backbone.cut, layers)
    assert re.match(
        r"fine_tune\.layers: expected all, top, or the name of a layer .*: block13_add, block14_exp", str(error.value)
    )
    assert str(error.value).endswith(f"Received: '{layers}'.")


def test_layers_between_the_cut_and_the_named_layer_stay_as_they_were(head, backbone, tune):
    model = load(head, backbone)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    tune(model, changed_settings(layers="block14_add", epochs=1))
    assert changed(before, model) == {
        "block15_expand_conv",
        "block15_depthwise_conv",
        "block15_project_conv",
        "top_conv",
        "head_logits",
    }


def test_the_learning_rate_falls_from_block_to_block(backbone, head):
    network = choose_layers(load(head, backbone), backbone.cut, "top")
    rates = learning_rates(network, 0.5)
    assert len(rates) == len(network.trainable_variables)
    assert (rates["head_logits/kernel"], rates["head_logits/bias"], rates["top_conv/kernel"]) == (1, 1, 0.5)
    # Block 14 is residual, and so one block; block 15 is a chain, in which every convolution is one.
    block14 = {rate for path, rate in rates.items() if path.startswith("block14")}
    assert len(block14) == 1
    assert min(rates.values()) == block14.pop()


def test_all_layers_are_trained_from_pixels(backbone, head, dataset, raw, views, tmp_path):
    model = load(head, backbone)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    checkpoint = Checkpoint(tmp_path / "checkpoint.npz")
    inputs_of = partial(live_pixels, raw=raw, views=views, workers=2)
    settings = changed_settings(layers="all", epochs=2)
    result = fine_tune(
        model,
        backbone.cut,
        dataset,
        inputs_of,
        settings,
        class_weight="none",
        seed=0,
        checkpoint=checkpoint,
        on_epoch=lambda _: None,
    )
    assert result.best
    assert result.best.epoch > 0
    assert changed(before, model) == {name for name, weights in before.items() if weights and not name.endswith("_bn")}
    assert result.as_report()["trained"] == "all"


# What comes of it.


def judged(before: float, after: float, only_before: int, only_after: int, **settings: object) -> tuple[bool, str]:
    first, best = curve((before, 0.5), (after, 0.4))
    right = [np.repeat(flags, [only_before, only_after]) for flags in ([True, False], [False, True])]
    return finetune._judge(first, best, mcnemar_test(*right), changed_settings(**settings))


def test_it_is_not_used_if_no_epoch_was_better():
    (head_alone,) = curve((0.8, 0.5))
    none = mcnemar_test(np.array([True]), np.array([True]))
    is_kept, words = finetune._judge(head_alone, head_alone, none, SETTINGS)
    assert not is_kept
    assert words.endswith("not used: no epoch was better on val than the head alone, 0.800 (cross-entropy 0.500).")


@pytest.mark.parametrize(
    ("only_before", "only_after", "expected"), [(0, 4, False), (0, 5, True), (5, 14, True), (9, 14, False)]
)
@pytest.mark.parametrize("mode", ["always", "auto"])
def test_it_is_used_only_if_the_gain_is_more_than_chance(only_before, only_after, expected, mode):
    is_kept, words = judged(0.8, 0.9, only_before, only_after, mode=mode, significance=0.05)
    assert is_kept is expected
    assert f"The fine-tuned network is {'' if expected else 'not '}used: val accuracy 0.900" in words
    assert f"{only_after} val photos are right only with it, {only_before} only without it" in words
    assert re.search(r"p = 0\.\d+\); fine_tune\.significance is 0\.05", words)


@pytest.mark.parametrize(("only_before", "only_after", "expected"), [(7, 8, True), (0, 1, True), (7, 7, False)])
def test_with_the_largest_significance_any_gain_in_accuracy_is_enough(only_before, only_after, expected):
    assert judged(0.8, 0.9, only_before, only_after, significance=0.5)[0] is expected


def test_auto_does_not_train_where_no_gain_could_be_told_from_chance(head, backbone, tune):
    epochs: list[Epoch] = []
    result = tune(load(head, backbone), changed_settings(mode="auto", significance=0.001), on_epoch=epochs.append)
    assert (result.is_kept, result.curve, epochs) == (False, [], [])
    assert re.match(r"Not fine-tuned: the head is wrong on \d of 9 val photos\. .*0\.001 it takes 10\.", result.reason)


def test_auto_does_not_train_where_it_would_take_too_long(head, backbone, tune):
    result = tune(load(head, backbone), changed_settings(mode="auto", max_minutes=1e-6))
    assert (result.is_kept, result.curve) == (False, [])
    assert re.match(
        r"Not fine-tuned: 2 epochs would take about .* minutes here, and fine_tune\.max_minutes is", result.reason
    )


def test_auto_trains_as_always_does_where_it_trains(tuned, head, backbone, tune):
    _, model, expected = tuned
    again = load(head, backbone)
    result = tune(again, changed_settings(mode="auto"))
    assert result.curve == expected.curve
    assert all(np.array_equal(*pair) for pair in zip(again.get_weights(), model.get_weights(), strict=True))


def test_the_report_says_what_was_done_and_why(tuned):
    *_, result = tuned
    report = result.as_report()
    assert report == {
        "mode": "always",
        "layers": "top",
        "is_kept": True,
        "trained": "top",
        "reason": result.reason,
        "val": asdict(result.best.val),
        "best_epoch": result.best.epoch,
        "epochs_run": 2,
        "head_alone": asdict(result.curve[0].val),
        "mcnemar": asdict(result.test),
    }


def test_without_fine_tuning_the_report_says_so():
    assert switched_off(changed_settings(mode="off")).as_report() == {
        "mode": "off",
        "layers": "top",
        "is_kept": False,
        "trained": "head",
        "reason": "Fine-tuning is off (fine_tune.mode in params.yaml).",
    }


# Which checkpoint belongs to which training.


def test_whatever_determines_a_training_is_in_the_name_of_its_checkpoint(backbone, views, tmp_path):
    files = [tmp_path / "head.keras", tmp_path / "dataset.parquet"]
    for file in files:
        file.write_text(file.name)

    def name(backbone=backbone, views=views, settings=SETTINGS, class_weight: ClassWeight = "none", seed=0) -> str:
        return open_checkpoint(
            tmp_path, facts_of(backbone, views, settings, class_weight, files=files, seed=seed)
        ).path.name

    names = [
        name(),
        name(backbone=replace(backbone, wanted_cut="block12_add")),
        name(backbone=replace(backbone, weights_digest="random")),
        name(views=replace(views, count=2)),
        name(settings=changed_settings(learning_rate=0.002)),
        name(class_weight="balanced"),
        name(seed=1),
    ]
    assert name() == names[0]
    for file in files:
        file.write_text("other")
        names.append(name())
    assert len(set(names)) == len(names)
