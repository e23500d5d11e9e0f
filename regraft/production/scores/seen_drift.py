"""Whether the latest photos are like those that the model in production was trained on.

Four kinds of figures, each with a limit that is large and that chance seldom exceeds: the classes' shares and the
photos' statistics by the population stability index (`regraft.validation.drift`, where a photo's label is the class
that the model finds most probable), and the shares of photos that are novel, and of which the model is unsure.

`novel` means above the k-th largest value of n val photos (`regraft.serving.novelty`). The share of other photos that
exceed it is a Beta(k, n - k + 1) variable, k / (n + 1) on average, whatever the distribution. So of m photos a
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
from regraft.serving.novelty import rank_of, share_of
from regraft.setting_types import AtMost
from regraft.validation.drift import (
    FEWEST_JOINED,
    STATISTICS,
    drift_tables,
    population_stability_index,
    psi_by_chance,
    with_shape,
)
from regraft.validation.histograms import Limits, histograms

_TESTS = 3  # novel, unsure and class shares have equal parts of the chance of a false alarm (Bonferroni)
_MOVES = 3  # classes that the words name


@dataclass(frozen=True, slots=True)
class Trained:
    """What is known of how the model in production was made."""

    reference: Reference | None  # the photos that it was trained on
    words: str  # which they are, or why they are not known
    unsure: tuple[int, int] | None = None  # of how many test photos it was unsure, and how many there were
    novel_photos: int | None = None  # on which what is novel was found; None: the val photos of `reference`


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
    """All comparisons of the latest photos."""

    photos: int  # that are compared, each content once
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


def latest_photos(
    scores: pd.DataFrame, model: str, since: datetime, at_least: int, max_hash_distance: int | None
) -> pd.DataFrame:
    """Return the photos that came in with the last run that brought any, and if they are few some from before.

    Many photos of former runs would hide what has changed today, and few photos say nothing.

    Args:
        scores: the table.
        model: SHA-256 of the model in production.
        since: UTC; none is older.
        at_least: how many are wanted.
        max_hash_distance: bits in which perceptual hashes of near-duplicates may differ.

    Returns:
        Rows of `scores`, each content once, with the columns label, the class that is most probable, and group, which
        near-duplicates share.
    """
    rows = scores[(scores.model == model) & scores.error.isna() & (scores.first_seen > pd.Timestamp(since))]
    # Ordered by digest, those of one run are as good as drawn at random.
    rows = rows.drop_duplicates("sha256").sort_values(["first_seen", "sha256"], ascending=[False, True])
    of_last_run = int((rows.first_seen == rows.first_seen.max()).sum())
    rows = rows.head(max(of_last_run, at_least)).reset_index(drop=True)
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
        recent: from `latest_photos`.
        trained: how production was made.
        settings: limits and severities.
    """
    reference = trained.reference
    known = set(reference.rows.digest) | reference.base_saw.digests if reference else set()
    new = recent[~recent.sha256.isin(list(known))]
    one_each, figures, chance = new.drop_duplicates("group"), [], settings.significance / _TESTS
    if len(one_each) >= FEWEST_JOINED:
        if one_each.novel.notna().all() and (val := _val_photos(trained)):
            figures.append(_novel(one_each, val, settings.novel, chance))
        if trained.unsure:
            figures.append(_unsure(one_each, trained.unsure, settings.unsure, chance))
        if reference:
            figures.append(_class_shares(one_each, reference, settings.class_shares, chance))
    if reference and settings.statistics.severity != "off":
        figures += _statistics(new, reference, settings.statistics)
    figures = [figure for figure in figures if figure.severity != "off"]
    return SeenDrift(len(recent), len(recent) - len(new), len(one_each), trained.words, tuple(figures))


def histograms_of(recent: pd.DataFrame, reference: Reference | None, limits: Limits) -> dict[str, dict[str, Any]]:
    """Return what the report draws of the photos' statistics, now and in production."""
    return histograms(with_shape(recent), with_shape(reference.rows) if reference else None, limits)


def _statistics(new: pd.DataFrame, reference: Reference, setting: AtMost[float]) -> list[Figure]:
    tables = drift_tables(
        {"production": reference.rows},
        new.rename(columns={"sha256": "digest"}),
        max_of_shares=setting.max,
        max_of_statistics=setting.max,
    )
    # Where no photo was there before, `all` and those that `joined` are the same.
    tables = tables[(tables.photos == "joined") & tables.quantity.isin(STATISTICS)]
    return [
        _index(row.quantity.replace("_", " "), row.now, row.psi, row.limit, setting.severity, row.words)
        for row in tables.itertuples()
    ]


def _class_shares(photos: pd.DataFrame, reference: Reference, setting: AtMost[float], chance: float) -> Figure:
    """The mix of all classes that the model knows: one that nobody brings any more has moved as well."""
    before, after = (rows.label.value_counts() for rows in (reference.rows, photos))
    classes = sorted({*before.index, *after.index})
    then, now = (counts.reindex(classes, fill_value=0).to_numpy() for counts in (before, after))
    psi = population_stability_index(then, now)
    limit = max(setting.max, psi_by_chance(max(2, len(classes)), then.sum(), now.sum(), chance))
    shares = zip(classes, then / then.sum(), now / now.sum(), strict=True)
    moves = sorted(shares, key=lambda move: -abs(move[2] - move[1]))[:_MOVES]
    words = ", ".join(f"{name} {share:.0%} -> {share_now:.0%}" for name, share, share_now in moves)
    return _index("class shares", len(photos), psi, limit, setting.severity, words)


def _index(quantity: str, photos: int, psi: float, limit: float, severity: str, words: str) -> Figure:
    words = f"{quantity}: {words} (index {psi:.2f}, limit {limit:.2f})"
    return Figure(quantity, photos, psi, limit, 0.0, severity, words)


def _val_photos(trained: Trained) -> int:
    reference = trained.reference
    return trained.novel_photos or (int((reference.rows.split == "val").sum()) if reference else 0)


def _novel(photos: pd.DataFrame, val: int, setting: AtMost[float], chance: float) -> Figure:
    most = max(setting.max, most_novel(len(photos), val, chance) / len(photos))
    return _share("novel", photos.novel, share_of(val), most, setting.severity)


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


def _unsure(photos: pd.DataFrame, of_test: tuple[int, int], setting: AtMost[float], chance: float) -> Figure:
    from scipy.stats import betabinom

    unsure, count = of_test
    by_chance = betabinom(len(photos), unsure + 1, max(1, count - unsure))
    most = max(unsure / count + setting.max, float(by_chance.isf(chance)) / len(photos))
    return _share("unsure", photos.unsure, unsure / count, most, setting.severity)


def _share(name: str, are: pd.Series, expected: float, limit: float, severity: str) -> Figure:
    found, count = int(are.sum()), len(are)
    words = f"{name}: {wilson(found, count)} of {count} photos, about {expected:.1%} expected (limit {limit:.1%})"
    return Figure(name, count, found / count, limit, expected, severity, words)
