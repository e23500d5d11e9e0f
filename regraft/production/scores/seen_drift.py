"""Whether the photos of the last days are like those that the model in production was trained on.

Four figures, each with a limit that is large and that chance seldom exceeds: the classes' shares and the photos'
statistics by the population stability index (`regraft.validation.drift`, where a photo's label is the class that the
model finds most probable), and the shares of photos that are novel, and of which the model is unsure.

`novel` means above the 99th percentile on val. Of n val photos that is about the k-th largest value, k = n / 100, and
what share of other photos exceeds it is a Beta(k, n - k + 1) variable, whatever the distribution. So of m photos a
beta-binomial number is novel without any drift. Where k of n test photos left the model unsure, at most a
Beta(k + 1, n - k) share of others does, as for the bound of Clopper and Pearson.

Near-duplicates count once, and photos that production was trained on do not count: they say nothing new.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from regraft.config_shipping import Score
from regraft.files import finite
from regraft.intervals import wilson
from regraft.photos.duplicates import mark_duplicates
from regraft.production.scores.table import CLASS, class_columns
from regraft.production.training_data import Reference
from regraft.validation.drift import FEWEST_JOINED, STATISTICS, drift_tables, with_shape
from regraft.validation.histograms import Limits, histograms

NOVEL_SHARE = 0.01  # of val photos are above `novelty_above` (regraft/serving/shipped_model.py)
_TESTS = 2  # novel and unsure share the chance of a false alarm (Bonferroni)


@dataclass(frozen=True, slots=True)
class Trained:
    """What is known of how the model in production was made."""

    reference: Reference | None  # the photos that it was trained on
    words: str  # which they are, or why they are not known
    unsure: tuple[int, int] | None = None  # of how many test photos it was unsure, and how many there were


@dataclass(frozen=True, slots=True)
class Figure:
    """One comparison."""

    quantity: str  # class shares, novel, unsure, or one of STATISTICS
    photos: int  # that were compared, near-duplicates once
    now: float  # the stability index, or a share of the photos
    limit: float
    expected: float  # what it is about without drift
    severity: str  # warn | note; error, which cannot stop anything here, counts as warn
    words: str

    @property
    def has_moved(self) -> bool:
        """Whether it is above its limit."""
        return self.now > self.limit


@dataclass(frozen=True, slots=True)
class SeenDrift:
    """All comparisons of the photos of the last days."""

    photos: int  # that came in these days and are scored, each content once
    known: int  # of them those that production was trained on
    groups: int  # of the others, near-duplicates as one
    compared_with: str
    figures: tuple[Figure, ...]

    @property
    def warnings(self) -> list[str]:
        """What a person should look at, as clauses."""
        return [figure.words for figure in self.figures if figure.has_moved and figure.severity in ("warn", "error")]

    def as_report(self) -> dict[str, Any]:
        """Return it for reports/scores.json."""
        figures = [asdict(figure) | {"has_moved": figure.has_moved} for figure in self.figures]
        return finite(asdict(self) | {"figures": figures, "warnings": self.warnings})


def photos_since(scores: pd.DataFrame, model: str, since: datetime, max_hash_distance: int | None) -> pd.DataFrame:
    """Return the photos that came in after a moment, each content once.

    Args:
        scores: the table.
        model: SHA-256 of the model in production.
        since: UTC.
        max_hash_distance: bits in which perceptual hashes of near-duplicates may differ.

    Returns:
        Rows of `scores`, with the columns label, the class that is most probable, and group, which near-duplicates
        share.
    """
    rows = scores[(scores.model == model) & scores.error.isna() & (scores.first_seen > pd.Timestamp(since))]
    rows = rows.drop_duplicates("sha256").reset_index(drop=True)
    classes, columns = class_columns(rows), [CLASS + name for name in class_columns(rows)]
    own = rows[columns].fillna(-1.0).to_numpy()  # probabilities of classes that only other models know
    rows = rows.assign(label=[classes[place] for place in own.argmax(axis=1)] if len(rows) else [])
    as_manifest = rows.rename(columns={"sha256": "digest"})
    as_manifest = as_manifest.assign(verdict="use", reason=None, conflict=False, group=as_manifest.digest)
    marked = mark_duplicates(as_manifest, max_hash_distance=max_hash_distance, on_label_conflict="keep")
    return rows.assign(group=marked.group)


def measure_seen(recent: pd.DataFrame, trained: Trained, settings: Score) -> SeenDrift:
    """Compare photos with those that production was trained on.

    Args:
        recent: from `photos_since`.
        trained: how production was made.
        settings: limits and severities.
    """
    reference = trained.reference
    known = set(reference.rows.digest) | reference.also_seen if reference else set()
    new = recent[~recent.sha256.isin(list(known))]
    one_each = new.drop_duplicates("group")
    figures = _shares(one_each, trained, settings)
    if reference and {settings.class_shares.severity, settings.statistics.severity} != {"off"}:
        figures += _distributions(new, reference, settings)
    figures = [figure for figure in figures if figure.severity != "off"]
    return SeenDrift(len(recent), len(recent) - len(new), len(one_each), trained.words, tuple(figures))


def histograms_of(recent: pd.DataFrame, reference: Reference | None, limits: Limits) -> dict[str, dict[str, Any]]:
    """Return what the report draws of the photos' statistics, now and in production."""
    return histograms(with_shape(recent), with_shape(reference.rows) if reference else None, limits)


def _distributions(new: pd.DataFrame, reference: Reference, settings: Score) -> list[Figure]:
    tables = drift_tables(
        {"production": reference.rows},
        new.rename(columns={"sha256": "digest"}),
        max_of_shares=settings.class_shares.max,
        max_of_statistics=settings.statistics.max,
    )
    # Where no photo was there before, `all` and those that `joined` are the same.
    return [
        Figure(
            quantity=row.quantity,
            photos=row.now,
            now=row.psi,
            limit=row.limit,
            expected=0.0,
            severity=(settings.statistics if row.quantity in STATISTICS else settings.class_shares).severity,
            words=f"{row.quantity.replace('_', ' ')}: {row.words} (index {row.psi:.2f}, limit {row.limit:.2f})",
        )
        for row in tables[tables.photos == "joined"].itertuples()
    ]


def _shares(photos: pd.DataFrame, trained: Trained, settings: Score) -> list[Figure]:
    """How many are novel, and of how many the model is unsure; nothing of too few."""
    from scipy.stats import betabinom, binom

    count, chance = len(photos), settings.significance / _TESTS
    if count < FEWEST_JOINED:
        return []
    figures = []
    if photos.novel.notna().all():
        val = int((trained.reference.rows.split == "val").sum()) if trained.reference else 0
        rank = max(1, round(NOVEL_SHARE * val))
        by_chance = betabinom(count, rank, val - rank + 1) if val else binom(count, NOVEL_SHARE)
        novel = int(photos.novel.sum())
        figures.append(_share("novel", novel, count, NOVEL_SHARE, settings.novel, by_chance.isf(chance)))
    if trained.unsure:
        unsure, of_test = trained.unsure
        by_chance = betabinom(count, unsure + 1, max(1, of_test - unsure))
        found = int(photos.unsure.sum())
        figures.append(_share("unsure", found, count, unsure / of_test, settings.unsure, by_chance.isf(chance)))
    return figures


def _share(name: str, found: int, count: int, expected: float, setting: Any, most_by_chance: Any) -> Figure:
    large = setting.max if name == "novel" else expected + setting.max
    limit = max(large, float(most_by_chance) / count)
    words = f"{name}: {wilson(found, count)} of {count} photos, about {expected:.1%} expected (limit {limit:.1%})"
    return Figure(name, count, found / count, limit, expected, setting.severity, words)
