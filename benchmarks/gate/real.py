"""The gate on real photos: heads retrained on other parts of the same training photos, and some on wrong labels.

The champion is a head trained on 90 % of the training photos, the challengers are heads trained on other 90 %, with
other seeds; of those with wrong labels every third photo of one class, in train and val, has the label of another. The
test photos stay as they are. Since the champion may be lucky, all pairs of the healthy heads are compared as well.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.support.projects import HEAD_ONLY, ROOT, features_in, run_stage, stages_folder
from regraft.core.config import Params
from regraft.core.params_file import load_params
from regraft.features.table import Features
from regraft.photos.dataset import read_dataset
from regraft.photos.manifest import read_manifest
from regraft.production.gate.comparison import Predictions, compare, select
from regraft.production.gate.rule import decide
from regraft.training.heads import Rows, TrainedHead, settings_of, train_heads
from regraft.training.metrics import objective_of

_PART, _WRONG = 0.9, 0.3
_REASONS = {"accuracy": "worse than", "class": "recall of", "log_loss": "log loss"}  # words of the rule's sentences


def measure(raw: Path, work: Path, retrainings: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row per challenger, and the shares of verdicts.

    Args:
        raw: a folder of labelled photos.
        work: features are computed there, unless an earlier call did.
        retrainings: how many challengers of each kind.
    """
    project = work / raw.name
    if not (project / "build" / "features.arrow").is_file():
        stages_folder(project, raw, HEAD_ONLY)
        for stage in ("validate_data", "preprocess", "cache_features"):
            run_stage(stage, project, log=project / "log")
    params = load_params(ROOT / "params.yaml")
    with features_in(project) as features:
        labels, compared = _compared_photos(project, features)
        healthy = [_answers(params, features, compared, seed, None) for seed in range(retrainings + 1)]
        faulty = [*_on_wrong_labels(params, features, compared, retrainings)]
    rows = []
    for kind, challengers in (("healthy", healthy[1:]), ("wrong labels", faulty)):
        for number, challenger in enumerate(challengers):
            rows.append({"kind": kind, "retraining": number, **_verdict(params, labels, healthy[0], challenger)})
    pairs = [_verdict(params, labels, older, newer) for older in healthy for newer in healthy if older is not newer]
    summary = {"photos": raw.name, "n": len(labels)}
    for kind, of_kind in pd.DataFrame(rows).groupby("kind", sort=False):
        summary[str(kind)] = _shares(of_kind)
    return rows, summary | {"all pairs of healthy": _shares(pd.DataFrame(pairs))}


def _compared_photos(project: Path, features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and features of the test photos that the gate compares: one per group of near-duplicates."""
    _, manifest = read_manifest(project / "build" / "manifest.parquet")
    dataset = read_dataset(project / "build" / "dataset.parquet", project / "data" / "raw").rows.set_index("digest")
    positions = features.positions("test")
    test = dataset.loc[[features.digests[each] for each in positions]].reset_index()
    rows = select(test, manifest[["digest", "group"]], None, (features.class_names, features.class_names)).rows
    return test.class_name.to_numpy(str)[rows], features.read(positions[rows])


def _on_wrong_labels(
    params: Params, features: Features, compared: np.ndarray, retrainings: int
) -> Iterator[Predictions]:
    for number in range(retrainings):
        yield _answers(params, features, compared, 1000 + number, number % len(features.class_names))


def _answers(
    params: Params, features: Features, compared: np.ndarray, seed: int, wrong_class: int | None
) -> Predictions:
    """Train a head as `train_head` does, on a part of the training photos, and ask it."""
    random = np.random.default_rng(seed)
    is_left_out = (features.splits == "train") & (random.random(len(features.splits)) >= _PART)
    features = replace(features, splits=np.where(is_left_out, "left out", features.splits))
    if wrong_class is not None:
        moved = (features.class_indices == wrong_class) & (random.random(len(features.splits)) < _WRONG)
        others = (features.class_indices + random.integers(1, len(features.class_names), len(moved))) % len(
            features.class_names
        )
        features = replace(features, class_indices=np.where(moved, others, features.class_indices).astype(np.int32))
    config = params.train_head
    heads = train_heads(Rows.of(features), settings_of(config), config.class_weight, seed=seed, on_epoch=lambda _: None)
    loss_of = objective_of(config.class_weight).loss_of
    return Predictions(
        features.class_names, _probabilities(min(heads, key=lambda head: loss_of(head.best.val)), compared)
    )


def _probabilities(head: TrainedHead, rows: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    kernel, bias = head.weights  # a linear head, the default
    return softmax(rows @ kernel + bias, axis=1)


def _verdict(params: Params, labels: np.ndarray, older: Predictions, newer: Predictions) -> dict[str, Any]:
    compared = compare(labels, older, newer)
    decision, figures = decide(compared, (), params.promote), compared.figures()
    shown = ("b", "c", "n", "d", "p_worse", "log_loss_change", "log_loss_change_low")
    return {
        "verdict": decision.name,
        "if_chosen": decide(replace(compared, was_chosen=True), (), params.promote).name,
        **{name: round(figures[name], 4) for name in shown},
        **{
            f"by_{name}": decision.name == "Refused" and any(word in each for each in decision.reasons)
            for name, word in _REASONS.items()
        },
        "by_log_loss_alone": decision.name == "Refused" and all("log loss" in each for each in decision.reasons),
        "newer": round(float(compared.newer.mean()), 4),
    }


def _shares(verdicts: pd.DataFrame) -> dict[str, float]:
    """The shares of verdicts, and how often log loss alone refuses, or is wholly worse."""
    names = {f"{name.lower()}": (verdicts.verdict == name).mean() for name in ("Promoted", "Refused", "Undecided")}
    others = {
        **{name: verdicts[name].mean() for name in verdicts if str(name).startswith("by_")},
        "discordance": ((verdicts.b + verdicts.c) / verdicts.n).mean(),
        "mean_change": verdicts.d.mean(),
    }
    return {name: round(float(value), 4) for name, value in (names | others).items()}
