from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from regraft import finetune
from regraft.config import FineTune
from regraft.dataset import read_photo
from regraft.finetune import NOT_FINE_TUNED, FineTuned, fine_tune, join
from regraft.head_stack import HeadSettings
from regraft.heads import build_head
from regraft.metrics import Score, score
from regraft.networks import Epoch, compile_classifier, load_model, save_model, start_keras

SETTINGS = FineTune(mode="always", epochs=2, learning_rate=1e-3, weight_decay=0.01, label_smoothing=0.05, batch_size=6)


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


@pytest.fixture(scope="module")
def tuned(backbone, dataset, head, store, views):
    """The weights before fine-tuning, the network after it, and what came of it."""
    model = load(head, backbone)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    return (
        before,
        model,
        fine_tune(model, backbone.cut, dataset, store.activations, views, SETTINGS, seed=0, on_epoch=lambda _: None),
    )


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


@pytest.fixture
def seen(store, monkeypatch) -> list[bytes]:
    """The keys whose activations are read, in order; there need not be any."""
    keys: list[bytes] = []
    monkeypatch.setattr(store.activations, "read", lambda wanted: keys.extend(wanted) or np.zeros(1))
    return keys


def test_every_view_of_every_image_is_seen_equally_often(dataset, store, views, seen):
    train_set, views = dataset.of("train"), replace(views, count=2)
    load = finetune._loader(train_set, store.activations, views, seed=0)
    for epoch in range(6):
        load(np.arange(len(train_set)), epoch)
    assert set(Counter(seen).values()) == {2}
    assert len(set(seen)) == 3 * len(train_set)


def test_an_epoch_is_a_mix_of_views(dataset, store, views, seen):
    train_set = dataset.of("train")
    finetune._loader(train_set, store.activations, views, seed=0)(np.arange(len(train_set)), 0)
    assert {key[-1] for key in seen} == {0, 1}


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


def test_fine_tuning_gives_equal_weights_twice(tuned, head, backbone, dataset, store, views):
    _, model, _ = tuned
    again = load(head, backbone)
    fine_tune(again, backbone.cut, dataset, store.activations, views, SETTINGS, seed=0, on_epoch=lambda _: None)
    assert all(np.array_equal(*pair) for pair in zip(again.get_weights(), model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("scores", "best", "expected"),
    [
        ([(0.8, 0.5), (0.9, 0.6)], 1, True),
        ([(0.8, 0.5), (0.8, 0.4)], 1, True),
        ([(0.8, 0.5), (0.7, 0.1)], 0, False),
    ],
)
def test_the_network_is_kept_only_if_it_is_better_than_the_head_alone(scores, best, expected):
    epochs = curve(*scores)
    assert FineTuned(epochs, epochs[best]).is_kept is expected


def test_the_report_compares_with_the_head_alone():
    epochs = curve((0.8, 0.5), (0.9, 0.4), (0.85, 0.3))
    assert FineTuned(epochs, epochs[1]).as_report() == {
        "is_kept": True,
        "val": asdict(Score(0.9, 0.4)),
        "best_epoch": 1,
        "epochs_run": 2,
        "head_alone": asdict(Score(0.8, 0.5)),
    }


def test_without_fine_tuning_the_report_says_so():
    assert NOT_FINE_TUNED.as_report() == {"is_kept": False}
