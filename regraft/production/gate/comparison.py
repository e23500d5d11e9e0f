"""The paired comparison of two models: which test photos they are compared on, and the counts.

An older model has an advantage on photos of a group that it saw in training or val, and near-duplicates show the same
thing twice. So the first are excluded, and of the second one per group counts; classes that only one model knows are
excluded too. Photos are found in the older model's record by their bytes, and by perceptual hashes where these changed:
a photo that was saved anew has another SHA-256 and the same pixels.
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
from regraft.photos.duplicates import has_near, nearest_of
from regraft.photos.groups import groups_of_digests, hashed_given_groups
from regraft.photos.left_out import HASH
from regraft.production.training_data import Reference, Seen

_SMALLEST = 1e-7  # probability whose logarithm is taken, as in `regraft.training.metrics`
# A photo that went and one that came cannot be told from one photo under another label. Photos also age out, so the
# share is larger than that of changed labels: it is that of fine_tune.renew_after, from which on a base is too old.
_REPLACED = 0.1
_REPLACED_OF_CLASS = 0.5  # two classes of fifty that were swapped are 4 % of all photos, and all of theirs
_FEWEST = 5  # photos of a class that went: the loss of fewer is never shown (exact McNemar: 1/16)


@dataclass(frozen=True, slots=True)
class Selection:
    """The photos that two models are compared on, and those that are excluded."""

    rows: np.ndarray  # positions in the test split
    seen: int  # the older model saw them, or a near-duplicate of them, in training or val
    near_duplicates: int  # of a group of which another photo is compared
    other_classes: dict[str, int]  # photos by class, of classes that only one model knows
    old_labels: dict[int, str]  # by position: the label in the older model's record, where it differs
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
    record = _Record.of(test, groups, reference, max_hash_distance)
    both = set(known[0]) & set(known[1])
    rows: list[int] = []
    taken: set[str] = set()
    others: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    digests, names = test.digest.tolist(), test.class_name.tolist()
    for row, (group, name) in enumerate(zip(groups_of_digests(digests, groups), names, strict=True)):
        if name not in both:
            others[name] += 1
        elif group in record.seen:
            counts["seen"] += 1
        elif group in taken:
            counts["near"] += 1
        else:
            taken.add(group)
            rows.append(row)
    then = {row: record.labels.get(digests[row], {names[row]}) for row in rows}
    old_labels = {row: min(labels) for row, labels in then.items() if names[row] not in labels}
    return Selection(np.array(rows, int), counts["seen"], counts["near"], dict(others), old_labels, record.replaced)


@dataclass(frozen=True, slots=True)
class _Record:
    """Today's test photos in the record of an older model."""

    seen: set[str]  # today's groups of which the model saw a photo in training or val
    labels: dict[str, set[str]]  # by digest of a test photo that the record knows: the labels there
    replaced: str

    @classmethod
    def of(cls, test: pd.DataFrame, used: pd.DataFrame, reference: Reference | None, distance: int | None) -> "_Record":
        if reference is None:
            return cls(set(), {}, "")
        then, hashes = reference.rows, {}
        if distance is not None and HASH in used:
            hashed = used[used[HASH].notna()]
            hashes = dict(zip(hashed.digest.tolist(), hashed[HASH].tolist(), strict=True))
        known = set(then.digest)
        new = {digest: hashes[digest] for digest in test.digest.tolist() if digest not in known and digest in hashes}
        labels: dict[str, set[str]] = {}
        for digest, label in zip(then.digest.tolist(), then.label.tolist(), strict=True):
            labels.setdefault(digest, set()).add(label)
        labels |= _labels_of_near(new, then, used, distance)
        # A test photo that moved to another split judges nothing any more: it is gone, as one that left the folder.
        gone = _gone(then[then.split == "test"], set(test.digest), [*new.values()], distance)
        return cls(
            _groups_seen(reference, used, new, distance), labels, _replaced(gone, test, ~test.digest.isin(labels))
        )


def _labels_of_near(
    hashed: dict[str, str], then: pd.DataFrame, used: pd.DataFrame, distance: int | None
) -> dict[str, set[str]]:
    """Return the labels of the photos in the record that look most like some that are not there, by digest."""
    if not hashed or HASH not in then or distance is None:
        return {}
    # A photo that is still there, and looks so, is in the same group today: of the others none has to be compared.
    beside = used.digest[used.group.isin(set(groups_of_digests(list(hashed), used)))]
    old = then[then[HASH].notna() & (~then.digest.isin(used.digest) | then.digest.isin(beside))]
    found, names = nearest_of(list(hashed.values()), old[HASH].tolist(), distance), old.label.tolist()
    return {digest: {names[row] for row in rows} for digest, rows in zip(hashed, found, strict=True) if rows}


def _groups_seen(reference: Reference, used: pd.DataFrame, hashed: dict[str, str], distance: int | None) -> set[str]:
    """Return today's groups with a photo that the model saw, a near-duplicate, or one of the same given group."""
    saw = reference.seen()
    digests = [*saw.digests, *used.digest[hashed_given_groups(used).isin(saw.given)].tolist()]
    if distance is not None:
        gone = Seen.of(reference.rows[~reference.rows.digest.isin(used.digest)])
        is_near = has_near(
            list(hashed.values()), sorted((gone.hashes | reference.base_saw.hashes) & saw.hashes), distance
        )
        digests += [digest for digest, near in zip(hashed, is_near, strict=True) if near]
    return set(groups_of_digests(digests, used))


def _gone(then: pd.DataFrame, here: set[str], new: list[str], distance: int | None) -> pd.DataFrame:
    """Return the record's test photos, with whether each of them is gone; one that was saved anew is not."""
    gone = (~then.digest.isin(here)).to_numpy(copy=True)
    if HASH in then and distance is not None:
        asked = np.flatnonzero(gone & then[HASH].notna().to_numpy())
        gone[asked] = ~np.array(has_near(then[HASH].iloc[asked].tolist(), new, distance), bool)
    return then.assign(gone=gone)


def _replaced(then: pd.DataFrame, test: pd.DataFrame, came: pd.Series) -> str:
    """Return a sentence where so many test photos were replaced that changed labels would not be noticed."""
    went = float(then.gone.mean()) if len(then) else 0.0
    share = min(went, float(came.mean()) if len(test) else 0.0)
    left, new = then.groupby("label").gone, came.groupby(test.class_name)
    went_of, came_of = left.mean()[left.sum() >= _FEWEST], new.mean()
    lost = [name for name, part in went_of.items() if min(part, came_of.get(name, 0.0)) >= _REPLACED_OF_CLASS]
    if share < _REPLACED and not lost:
        return ""
    of = "" if share >= _REPLACED else f" of {', '.join(map(repr, lost[:5]))}"
    limit = _REPLACED_OF_CLASS if of else _REPLACED
    return (
        f"at least {limit:.0%} of the test photos{of} in production's record are gone, and as large a part of today's "
        f"is new. A photo that went and one that came cannot be told from one photo under another label: a person has "
        f"to look whether the labels are right"
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """A comparison part by part, such as class by class: arrays of one value per part."""

    names: np.ndarray
    images: np.ndarray
    b: np.ndarray  # photos that only the older model names rightly
    c: np.ndarray  # photos that only the newer one names rightly
    change: np.ndarray  # of accuracy
    p_worse: np.ndarray  # exact p that accuracy did not fall, after Holm

    def figures(self) -> list[dict[str, Any]]:
        """Return the figures for gate.json, the largest loss first."""
        order = np.argsort(self.change, kind="stable")
        columns = {"part": self.names.astype(str), "n": self.images, "b": self.b, "c": self.c, "d": self.change}
        table = {name: values[order].tolist() for name, values in (columns | {"p_worse": self.p_worse}).items()}
        return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


@dataclass(frozen=True)
class PairedComparison:
    """An older and a newer model on the same photos.

    In the words of `regraft.core.statistics`: b photos that only the older one names rightly, c only the newer.
    """

    labels: np.ndarray  # the true classes, by name or number, shape (n,)
    older: np.ndarray  # whether the older model is right, bool, shape (n,)
    newer: np.ndarray  # whether the newer one is
    losses: np.ndarray  # log loss of the newer one less that of the older one, shape (at most n,)
    older_loss: float = 0.0  # mean log loss of the older one
    was_chosen: bool = False  # the older one was promoted because of its answers to these photos
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
class Predictions:
    """A model's predictions for the compared photos."""

    class_names: list[str]
    probabilities: np.ndarray  # float32, shape (n, num_classes)

    def named(self) -> np.ndarray:
        """Return the names of the most probable classes."""
        return np.array(self.class_names, str)[self.probabilities.argmax(axis=1)]


def compare(labels: np.ndarray, older: Predictions, newer: Predictions) -> PairedComparison:
    """Compare two models on photos with these labels, which both know.

    A photo counts as right if the most probable of all of a model's classes is its label: that is what a caller gets,
    also where the newer model knows more classes. Log losses are of the probabilities over the common classes, so that
    a new class alone makes no model worse.
    """
    common = sorted(set(older.class_names) & set(newer.class_names))
    if strange := set(labels.tolist()) - set(common):
        raise InputsChanged(f"the labels {sorted(strange)} are not known to both models. Run `regraft promote` again.")
    rights, losses = [], []
    for model in (older, newer):
        rights.append(model.named() == labels)
        place = {name: model.class_names.index(name) for name in common}
        shared = model.probabilities[:, list(place.values())].astype(np.float64)
        own = model.probabilities[np.arange(len(labels)), [place[name] for name in labels.tolist()]]
        share = own / np.maximum(shared.sum(axis=1), _SMALLEST)
        losses.append(-np.log(np.clip(share, _SMALLEST, 1)))
    mean = float(losses[0].mean()) if len(labels) else 0.0
    return PairedComparison(labels, rights[0], rights[1], losses[1] - losses[0], mean)
