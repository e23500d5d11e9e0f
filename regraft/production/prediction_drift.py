"""Prediction drift: whether the latest photos resemble those that the model in production was trained on.

Four kinds of figures, each with a limit that is large and that chance seldom exceeds: the classes' shares and the
photos' statistics by the population stability index (`regraft.validation.drift`; the label is the most probable class),
and the shares of novel and of unsure photos.

`novel` means above the k-th largest value of n val photos (`serving/thresholds.py`). The share of other photos that
exceed it is a Beta(k, n - k + 1) variable, k / (n + 1) on average, whatever the distribution. So of m photos a
beta-binomial number is novel without any drift. Where k of n test photos left the model unsure, at most a
Beta(k + 1, n - k) share of others does, as for the bound of Clopper and Pearson.

Near-duplicates count once, and photos that production was trained on do not count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from regraft.core.statistics import wilson
from regraft.photos.duplicates import mark_duplicates
from regraft.production.scores import CLASS, class_columns
from regraft.production.training_data import Reference
from regraft.serving.thresholds import rank_of, share_of
from regraft.validation.drift import (
    FEWEST_JOINED,
    MUCH,
    STATISTICS,
    drift_tables,
    population_stability_index,
    psi_by_chance,
)

LATEST, DAYS = 200, 7  # at least so many photos are compared, if so many came in within so many days
_MANY_NOVEL, _MANY_UNSURE = 0.05, 0.1  # a share, and a share more than on test, that are no drift
_CHANCE = 0.001 / 3  # of a false alarm of novel, unsure and class shares together (Bonferroni)
_MOVES = 3  # classes that the words name


@dataclass(frozen=True, slots=True)
class Trained:
    """The training of the model in production."""

    reference: Reference | None  # the photos that it was trained on
    words: str  # which they are, or why they are not known
    unsure: tuple[int, int] | None = None  # unsure test photos, and all test photos
    novel_photos: int | None = None  # on which the novelty threshold was found; None: the val photos of `reference`


@dataclass(frozen=True, slots=True)
class Figure:
    """One comparison."""

    quantity: str  # class shares, novel, unsure, or one of STATISTICS
    photos: int  # that were compared, near-duplicates once
    now: float  # the stability index, or a share of the photos
    limit: float
    words: str

    @property
    def has_moved(self) -> bool:
        """Whether it is above its limit."""
        return self.now > self.limit


@dataclass(frozen=True, slots=True)
class PredictionDrift:
    """All comparisons of the latest photos."""

    photos: int  # that are compared, each content once
    known: int  # of them those that production was trained on
    groups: int  # of the others, near-duplicates as one
    figures: tuple[Figure, ...]

    @property
    def moved(self) -> list[str]:
        """The figures above their limits, as clauses."""
        return [figure.words for figure in self.figures if figure.has_moved]


def latest_photos(scores: pd.DataFrame, model: str, at: datetime, max_hash_distance: int | None) -> pd.DataFrame:
    """Return the photos of the last run that brought any, and if they are few some from before.

    Many photos of former runs would hide what has changed today, and few photos say nothing.

    Args:
        scores: the table.
        model: SHA-256 of the model in production.
        at: now, UTC.
        max_hash_distance: bits in which perceptual hashes of near-duplicates may differ.

    Returns:
        Rows of `scores`, each content once, with the columns label, the class that is most probable, and group, which
        near-duplicates share.
    """
    is_recent = scores.first_seen > pd.Timestamp(at) - timedelta(days=DAYS)
    rows = scores[(scores.model == model) & scores.error.isna() & is_recent]
    # Ordered by digest, those of one run are as good as drawn at random.
    rows = rows.drop_duplicates("sha256").sort_values(["first_seen", "sha256"], ascending=[False, True])
    of_last_run = int((rows.first_seen == rows.first_seen.max()).sum())
    rows = rows.head(max(of_last_run, LATEST)).reset_index(drop=True)
    classes = class_columns(rows)
    own = rows[[CLASS + name for name in classes]].fillna(-1.0).to_numpy()  # of classes that only other models know
    rows = rows.assign(label=[classes[place] for place in own.argmax(axis=1)] if len(rows) else [])
    manifest = rows.rename(columns={"sha256": "digest"})
    manifest = manifest.assign(verdict="use", reason=None, conflict=False, group=manifest.digest)
    marked = mark_duplicates(manifest, max_hash_distance=max_hash_distance, on_label_conflict="keep")
    return rows.assign(group=marked.group)


def measure_drift(recent: pd.DataFrame, trained: Trained) -> PredictionDrift:
    """Compare photos, from `latest_photos`, with those that the model in production was trained on."""
    reference = trained.reference
    known = set(reference.rows.digest) | reference.base_saw.digests if reference else set()
    new = recent[~recent.sha256.isin(list(known))]
    photos = new.drop_duplicates("group")
    figures = [*_of_predictions(photos, trained)] if len(photos) >= FEWEST_JOINED else []
    if reference:
        figures += _statistics(new, reference)
    return PredictionDrift(len(recent), len(recent) - len(new), len(photos), tuple(figures))


def most_novel(photos: int, val: int, chance: float) -> float:
    """Return how many of so many photos are novel at most without any drift, but for this chance.

    Args:
        photos: that are compared.
        val: photos on which the threshold was found.
        chance: of more.
    """
    from scipy.stats import betabinom

    rank = rank_of(val)
    return float(betabinom(photos, rank, val - rank + 1).isf(chance))


def _of_predictions(photos: pd.DataFrame, trained: Trained) -> Iterator[Figure]:
    from scipy.stats import betabinom

    reference, n = trained.reference, len(photos)
    val = trained.novel_photos or (int((reference.rows.split == "val").sum()) if reference else 0)
    if val and photos.novel.notna().all():
        yield _share("novel", photos.novel, share_of(val), max(_MANY_NOVEL, most_novel(n, val, _CHANCE) / n))
    if trained.unsure:
        unsure, tested = trained.unsure
        by_chance = float(betabinom(n, unsure + 1, max(1, tested - unsure)).isf(_CHANCE)) / n
        yield _share("unsure", photos.unsure, unsure / tested, max(unsure / tested + _MANY_UNSURE, by_chance))
    if reference:  # all classes that the model knows: one without new photos has moved as well
        before, after = (rows.label.value_counts() for rows in (reference.rows, photos))
        classes = sorted({*before.index, *after.index})
        then, now = (counts.reindex(classes, fill_value=0).to_numpy() for counts in (before, after))
        limit = max(MUCH, psi_by_chance(max(2, len(classes)), then.sum(), now.sum(), _CHANCE))
        shares = zip(classes, then / then.sum(), now / now.sum(), strict=True)
        moves = sorted(shares, key=lambda move: -abs(move[2] - move[1]))[:_MOVES]
        words = ", ".join(f"{name} {share:.0%} -> {share_now:.0%}" for name, share, share_now in moves)
        yield _index("class shares", n, population_stability_index(then, now), limit, words)


def _share(name: str, are: pd.Series, expected: float, limit: float) -> Figure:
    found, count = int(are.sum()), len(are)
    words = f"{name}: {wilson(found, count)} of {count} photos, about {expected:.1%} expected (limit {limit:.1%})"
    return Figure(name, count, found / count, limit, words)


def _statistics(new: pd.DataFrame, reference: Reference) -> list[Figure]:
    photos = new.rename(columns={"sha256": "digest"})
    tables = drift_tables({"production": reference.rows}, photos)
    # Where no photo was there before, `all` and those that `joined` are the same.
    tables = tables[(tables.photos == "joined") & tables.quantity.isin(STATISTICS)]
    return [
        _index(row.quantity.replace("_", " "), row.now, row.psi, row.limit, row.words) for row in tables.itertuples()
    ]


def _index(quantity: str, photos: int, psi: float, limit: float, words: str) -> Figure:
    return Figure(quantity, photos, psi, limit, f"{quantity}: {words} (index {psi:.2f}, limit {limit:.2f})")
