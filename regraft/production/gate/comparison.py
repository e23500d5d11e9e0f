"""Which test photos two models are compared on, and what both said of them.

Photos on which the older model has an advantage, or that say the same thing twice, would not be a fair test: those of a
group that it saw in training or val, all but one of a group of near-duplicates, and classes that only one of the two
knows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.errors import InputsChanged
from regraft.core.statistics import (
    Interval,
    exact_mcnemar,
    holm,
    mean_interval,
    not_worse,
    smallest_loss_shown,
    tango_interval,
)
from regraft.photos.groups import groups_of_digests
from regraft.production.gate.record_match import match_record
from regraft.production.training_data import Reference

_SMALLEST = 1e-7  # probability whose logarithm is taken, as in `regraft.training.metrics`


@dataclass(frozen=True, slots=True)
class Selection:
    """The photos that two models are compared on, and those that are left out."""

    rows: np.ndarray  # positions in the test split
    seen: int  # the older model saw them, or a near-duplicate of them, in training or val
    near_duplicates: int  # of a group of which another photo is compared
    other_classes: dict[str, int]  # photos by class, of classes that not both know
    old_labels: dict[int, str]  # by position: the label that the older model's record has, where it is another one
    replaced: str = ""  # a sentence where so many photos of that record were replaced that a person has to look


def select(
    test: pd.DataFrame,
    groups: pd.DataFrame,
    reference: Reference | None,
    known: tuple[Sequence[str], Sequence[str]],
    *,
    max_hash_distance: int | None = None,
) -> Selection:
    """Choose the photos for a fair comparison.

    Args:
        test: rows of the test split, with the columns of `regraft.photos.dataset.COLUMNS`.
        groups: of today's photos the columns digest and group, and phash and given_group, from the manifest.
        reference: what the older model was trained on; None: not known, and then no photo counts as seen.
        known: the classes of the older model, and of the newer one.
        max_hash_distance: bits in which perceptual hashes of near-duplicates may differ; None: copies only.
    """
    record = match_record(test, groups, reference, max_hash_distance)
    both = set(known[0]) & set(known[1])
    rows: list[int] = []
    taken: set[str] = set()
    others: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    of_test = groups_of_digests(test.digest.tolist(), groups)
    for row, (group, name) in enumerate(zip(of_test, test.class_name.tolist(), strict=True)):
        if name not in both:
            others[name] += 1
        elif group in record.seen:
            counts["seen"] += 1
        elif group in taken:
            counts["near"] += 1
        else:
            taken.add(group)
            rows.append(row)
    names = test.class_name.tolist()
    digests = test.digest.tolist()
    old_labels = {row: before for row in rows if (before := record.other_label(digests[row], names[row])) is not None}
    return Selection(np.array(rows, int), counts["seen"], counts["near"], dict(others), old_labels, record.replaced)


@dataclass(frozen=True, slots=True)
class Parts:
    """A contest part by part, such as class by class: arrays of one value per part."""

    names: np.ndarray
    images: np.ndarray
    b: np.ndarray  # photos that only the older model names rightly
    c: np.ndarray  # photos that only the newer one names rightly
    change: np.ndarray  # of accuracy
    p_worse: np.ndarray  # exact p that accuracy did not fall, after Holm

    def figures(self) -> list[dict[str, Any]]:
        """Return the figures for gate.json, the largest loss first."""
        order = np.argsort(self.change, kind="stable").tolist()
        return [
            {
                "part": str(self.names[each]),
                "n": int(self.images[each]),
                "b": int(self.b[each]),
                "c": int(self.c[each]),
                "d": float(self.change[each]),
                "p_worse": float(self.p_worse[each]),
            }
            for each in order
        ]


@dataclass(frozen=True)
class Contest:
    """Two models on the same photos: an older one and a newer one, which is on trial.

    In the words of `regraft.core.statistics`: b photos that only the older one names rightly, c only the newer.
    """

    labels: np.ndarray  # the true classes, by name or number, shape (n,)
    older: np.ndarray  # whether the older model is right, bool, shape (n,)
    newer: np.ndarray  # whether the newer one is
    losses: np.ndarray  # log loss of the newer one less that of the older one, shape (at most n,)
    older_loss: float = 0.0  # mean log loss of the older one
    was_chosen: bool = False  # the older one was let in because of how it did on these photos
    # Where the older one is an anchor: d of the newest other models against it on these photos, oldest first.
    recent: tuple[float, ...] | None = None

    @property
    def n(self) -> int:
        """Photos."""
        return len(self.labels)

    @cached_property
    def b(self) -> int:
        """Photos that only the older model names rightly."""
        return int((self.older & ~self.newer).sum())

    @cached_property
    def c(self) -> int:
        """Photos that only the newer model names rightly."""
        return int((self.newer & ~self.older).sum())

    @property
    def d(self) -> float:
        """Accuracy of the newer model less that of the older one."""
        return (self.c - self.b) / self.n if self.n else 0.0

    @cached_property
    def interval(self) -> Interval:
        """The difference d with its 95 % interval."""
        return tango_interval(self.b, self.c, self.n)

    def p_worse(self) -> float:
        """Exact p that the newer model is at least as good: small where harm is shown."""
        return float(exact_mcnemar(self.c, self.b))

    def p_not_worse(self, margin: float) -> float:
        """Tango's p that the newer model is worse by the margin or more: small where it is not."""
        return float(not_worse(self.b, self.c, self.n, margin)) if self.n else 1.0

    @property
    def smallest_loss_shown(self) -> float:
        """Loss of accuracy that this test set shows with a power of 80 %."""
        return smallest_loss_shown(self.b, self.c, self.n)

    def log_loss(self, level: float = 0.95) -> Interval:
        """The difference of log losses with its interval; positive where the newer model is worse."""
        return mean_interval(self.losses, level)

    @cached_property
    def by_class(self) -> Parts:
        """The same counts class by class."""
        return self.by(self.labels)

    def by(self, values: np.ndarray) -> Parts:
        """Return the same counts for each of the values that photos have, shape (n,)."""
        names, index = np.unique(values, return_inverse=True)
        images, b, c = (
            np.bincount(index, weights, len(names)).astype(int)
            for weights in (None, self.older & ~self.newer, self.newer & ~self.older)
        )
        return Parts(names, images, b, c, (c - b) / images, holm(exact_mcnemar(c, b)))

    def figures(self) -> dict[str, Any]:
        """Return the figures for gate.json."""
        log_loss = self.log_loss()
        return {
            "n": self.n,
            "b": self.b,
            "c": self.c,
            "d": self.d,
            "d_low": self.interval.low,
            "d_high": self.interval.high,
            "p_worse": self.p_worse(),
            "smallest_loss_shown": self.smallest_loss_shown,
            "log_loss_change": log_loss.value,
            "log_loss_change_low": log_loss.low,
            "log_loss_change_high": log_loss.high,
        }


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said of the compared photos."""

    class_names: list[str]
    probabilities: np.ndarray  # float32, shape (n, num_classes)


def contest(labels: np.ndarray, older: Answers, newer: Answers) -> Contest:
    """Compare two models on photos with these labels, which both know.

    A photo counts as right if the most probable of all of a model's classes is its label: that is what a caller gets,
    also where the newer model knows more classes. Log losses are of the probabilities over the common classes, so that
    a new class alone makes no model worse.

    Args:
        labels: names of the true classes, shape (n,).
        older: the answers of one model.
        newer: those of the other.
    """
    common = sorted(set(older.class_names) & set(newer.class_names))
    if strange := set(labels.tolist()) - set(common):
        raise InputsChanged(f"the labels {sorted(strange)} are not known to both models. Run `regraft promote` again.")
    rights, losses = [], []
    for answers in (older, newer):
        names = np.array(answers.class_names)
        rights.append(names[answers.probabilities.argmax(axis=1)] == labels)
        place = {name: answers.class_names.index(name) for name in common}
        shared = answers.probabilities[:, list(place.values())].astype(np.float64)
        own = answers.probabilities[np.arange(len(labels)), [place[name] for name in labels.tolist()]]
        share = own / np.maximum(shared.sum(axis=1), _SMALLEST)
        losses.append(-np.log(np.clip(share, _SMALLEST, 1)))
    mean = float(losses[0].mean()) if len(labels) else 0.0
    return Contest(labels, rights[0], rights[1], losses[1] - losses[0], mean)
