from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from regraft.core.errors import RegraftError
from regraft.features.table import Features
from regraft.training.batched_heads import HeadSettings
from regraft.training.compared import Rows
from regraft.training.heads import find_head, learning_curve, settings_of, write_leaderboard
from regraft.training.keras_network import build_head
from tests.support.heads import LINEAR, are_equal, config, train


def unwatched(_: str):
    return lambda epoch: None


@pytest.mark.parametrize(("hidden_units", "weights"), [(0, 6 * 4 + 4), (5, 6 * 5 + 5 + 5 * 4 + 4)])
def test_a_head_is_linear_or_has_one_hidden_layer(hidden_units, weights):
    assert build_head(6, 4, replace(LINEAR, hidden_units=hidden_units)).count_params() == weights


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_its_outputs_are_probabilities(hidden_units):
    head = build_head(6, 4, replace(LINEAR, hidden_units=hidden_units))
    outputs = np.asarray(head(np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)))
    assert outputs.min() >= 0
    assert outputs.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)  # float32


def test_a_sweep_is_every_combination():
    kinds = {"kind": ["linear", "mlp", "classic"], "penalty": [0.1, 0.01]}
    sweep = settings_of(config(**kinds, dropout=[0.0, 0.5], learning_rate=[0.1, 0.01, 0.001]))
    assert sweep == [
        *(HeadSettings(0, "silu", "lbfgs", 0.0, 0.0, penalty, 0.05) for penalty in (0.1, 0.01)),
        *(HeadSettings(5, "silu", "adamw", *each, 0.001, 0.05) for each in
          [(0.0, 0.1), (0.0, 0.01), (0.0, 0.001), (0.5, 0.1), (0.5, 0.01), (0.5, 0.001)]),
        HeadSettings(1024, "relu", "rmsprop", 0.0, 0.001, 0.0, 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize("sweep", [{"learning_rate": [0.0001, 0.02, 30.0], "kind": "mlp"}, {"penalty": [9.0, 0.1]}])
def test_the_winner_has_the_lowest_log_loss(features, sweep):
    winner, comparison = find_head(features, config(**sweep), seed=0, watch=unwatched)
    losses = [trained.best.val.log_loss for trained in comparison.ranked]
    assert losses == sorted(losses)
    assert winner.settings == comparison.ranked[0].settings


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, as numbers leave float32
def test_a_head_that_left_the_finite_numbers_never_wins_and_alone_it_is_an_error(features):
    winner, comparison = find_head(features, config(kind="mlp", learning_rate=[1e38, 0.01]), seed=0, watch=unwatched)
    assert winner.settings.learning_rate == 0.01
    assert [trained.is_finite for trained in comparison.ranked] == [True, False]
    with pytest.raises(RegraftError, match=r"not finite numbers .+learning rate 1e\+38.+lower train_head"):
        find_head(features, config(kind="mlp", learning_rate=1e38), seed=0, watch=unwatched)


def test_a_winner_with_a_hidden_layer_is_what_it_is_without_the_sweep(features):
    winner, _ = find_head(features, config(kind="mlp", learning_rate=[0.0001, 0.02]), seed=0, watch=unwatched)
    rate = winner.settings.learning_rate
    alone, _ = find_head(features, config(kind="mlp", learning_rate=rate), seed=0, watch=unwatched)
    assert are_equal(winner, alone)


def test_the_leaderboard_lists_every_head_with_its_settings(features, tmp_path):
    ranked = train(features, LINEAR, replace(LINEAR, weight_decay=9.0))
    write_leaderboard(tmp_path / "leaderboard.csv", ranked)
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert list(table.weight_decay) == [trained.settings.weight_decay for trained in ranked]
    assert list(table.val_log_loss) == pytest.approx([trained.best.val.log_loss for trained in ranked])


def test_the_learning_curve_has_each_share(features):
    settings = config(learning_curve=[0.5, 0.1])
    curve = learning_curve(find_head(features, settings, seed=0, watch=unwatched)[1], settings, seed=0, watch=unwatched)
    (half,) = train(features, LINEAR, share=0.5)
    assert list(curve) == [3, 9]  # of 18 photos, at least one of each class
    assert curve[9].mean() == half.best.val.accuracy


# Where photos are many.


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_settings_are_compared_on_a_sample_and_the_best_is_trained_on_all_photos(features, kind):
    sweep = {"kind": kind, "penalty": [9.0, 0.1], "learning_rate": [0.0001, 0.02]}
    winner, comparison = find_head(features, config(**sweep, max_photos=6), seed=0, watch=unwatched)
    sample = Rows.of(features).sample(6)
    best = comparison.ranked[0]
    assert (comparison.photos, comparison.rows.photos, len(comparison.rows.val)) == (18, 6, 6)
    assert are_equal(best, find_head(on(features, sample), config(**sweep), seed=0, watch=unwatched)[1].ranked[0])
    judged = on(features, Rows(features, Rows.of(features).train, sample.val))
    assert are_equal(winner, train(judged, best.settings, max_photos=100)[0])
    assert winner.right.shape == best.right.shape == (6,)


def test_the_learning_curve_then_ends_with_the_sample(features):
    settings = config(learning_curve=[0.5], max_photos=6)
    _, comparison = find_head(features, settings, seed=0, watch=unwatched)
    curve = learning_curve(comparison, settings, seed=0, watch=unwatched)
    assert list(curve) == [3, 6]
    assert curve[6] is comparison.ranked[0].right


def test_a_sample_has_all_views_of_its_photos(features):
    sample = Rows.of(features).sample(6)
    digests = [features.digests[position] for position in sample.train]
    assert [digests.count(digest) for digest in set(digests)] == [2] * 6


def on(features: Features, rows: Rows) -> Features:
    """The features with these rows alone in train and val."""
    splits = np.full(len(features.splits), "others")
    splits[rows.train], splits[rows.val] = "train", "val"
    return replace(features, splits=splits)
