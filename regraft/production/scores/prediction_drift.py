"""Prediction drift: whether the latest photos resemble those that the model in production was trained on.

Four kinds of figures, each with a limit that is large and that chance seldom exceeds: the classes' shares and the
photos' statistics by the population stability index (`regraft.validation.drift`; the label is the most probable class),
and the shares of novel and of unsure photos.

`novel` means above the k-th largest value of n val photos (`regraft.serving.novelty`). The share of other photos that
exceed it is a Beta(k, n - k + 1) variable, k / (n + 1) on average, whatever the distribution. So of m photos a
beta-binomial number is novel without any drift. Where k of n test photos left the model unsure, at most a
Beta(k + 1, n - k) share of others does, as for the bound of Clopper and Pearson.

Near-duplicates count once, and photos that production was trained on do not count: they say nothing new.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from regraft.core.config_shipping import Score
from regraft.core.files import finite
from regraft.core.statistics import wilson
from regraft.photos.duplicates import mark_duplicates
from regraft.production.scores.table import CLASS, class_columns
from regraft.production.training_data import Reference
from regraft.serving.novelty import rank_of, share_of
from regraft.validation.drift import (
    FEWEST_JOINED,
    STATISTICS,
    drift_tables,
    population_stability_index,
    psi_by_chance,
)

_TESTS = 3  # novel, unsure and class shares have equal parts of the chance of a false alarm (Bonferroni)
_MOVES = 3  # classes that the words name
_DAYS = 14  # days of which the report has a line
_LISTED = 100  # bad files, and photos to look at, that the report names
_TO_LOOK_AT = ["path", "sha256", "class", "label", "probability", "novelty"]


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
    severity: str  # warn | note; error, which cannot stop anything here, counts as warn
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
    compared_with: str
    figures: tuple[Figure, ...]

    @property
    def warnings(self) -> list[str]:
        """The figures that a person should look at, as clauses."""
        return [figure.words for figure in self.figures if figure.has_moved and figure.severity in ("warn", "error")]

    def as_report(self) -> dict[str, Any]:
        """Return it for reports/scores.json."""
        figures = [asdict(figure) | {"has_moved": figure.has_moved} for figure in self.figures]
        return finite(asdict(self) | {"figures": figures, "warnings": self.warnings})


def latest_photos(
    scores: pd.DataFrame, model: str, since: datetime, at_least: int, max_hash_distance: int | None
) -> pd.DataFrame:
    """Return the photos of the last run that brought any, and if they are few some from before.

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
    manifest = rows.rename(columns={"sha256": "digest"})
    manifest = manifest.assign(verdict="use", reason=None, conflict=False, group=manifest.digest)
    marked = mark_duplicates(manifest, max_hash_distance=max_hash_distance, on_label_conflict="keep")
    return rows.assign(group=marked.group)


def measure_drift(recent: pd.DataFrame, trained: Trained, settings: Score) -> PredictionDrift:
    """Compare photos with those that production was trained on.

    Args:
        recent: from `latest_photos`.
        trained: of the model in production.
        settings: limits and severities.
    """
    reference = trained.reference
    known = set(reference.rows.digest) | reference.base_saw.digests if reference else set()
    new = recent[~recent.sha256.isin(list(known))]
    photos, figures, chance = new.drop_duplicates("group"), [], settings.significance / _TESTS
    if len(photos) >= FEWEST_JOINED:
        val = trained.novel_photos or (int((reference.rows.split == "val").sum()) if reference else 0)
        if val and photos.novel.notna().all():
            limit = max(settings.novel.max, most_novel(len(photos), val, chance) / len(photos))
            figures.append(_share("novel", photos.novel, share_of(val), limit, settings.novel.severity))
        if trained.unsure:
            expected, by_chance = _unsure_by_chance(len(photos), trained.unsure, chance)
            limit = max(expected + settings.unsure.max, by_chance)
            figures.append(_share("unsure", photos.unsure, expected, limit, settings.unsure.severity))
        if reference:
            figures.append(_class_shares(photos, reference, settings, chance))
    if reference:
        figures += _statistics(new, reference, settings)
    figures = [figure for figure in figures if figure.severity != "off"]
    return PredictionDrift(len(recent), len(recent) - len(new), len(photos), trained.words, tuple(figures))


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


def _unsure_by_chance(photos: int, of_test: tuple[int, int], chance: float) -> tuple[float, float]:
    """Return the expected share of unsure photos, and the largest without drift, but for this chance."""
    from scipy.stats import betabinom

    unsure, count = of_test
    return unsure / count, float(betabinom(photos, unsure + 1, max(1, count - unsure)).isf(chance)) / photos


def _share(name: str, are: pd.Series, expected: float, limit: float, severity: str) -> Figure:
    found, count = int(are.sum()), len(are)
    words = f"{name}: {wilson(found, count)} of {count} photos, about {expected:.1%} expected (limit {limit:.1%})"
    return Figure(name, count, found / count, limit, severity, words)


def _class_shares(photos: pd.DataFrame, reference: Reference, settings: Score, chance: float) -> Figure:
    """Compare the mix of all classes that the model knows: one without new photos has moved as well."""
    setting = settings.class_shares
    before, after = (rows.label.value_counts() for rows in (reference.rows, photos))
    classes = sorted({*before.index, *after.index})
    then, now = (counts.reindex(classes, fill_value=0).to_numpy() for counts in (before, after))
    limit = max(setting.max, psi_by_chance(max(2, len(classes)), then.sum(), now.sum(), chance))
    shares = zip(classes, then / then.sum(), now / now.sum(), strict=True)
    moves = sorted(shares, key=lambda move: -abs(move[2] - move[1]))[:_MOVES]
    words = ", ".join(f"{name} {share:.0%} -> {share_now:.0%}" for name, share, share_now in moves)
    psi = population_stability_index(then, now)
    return _index("class shares", len(photos), psi, limit, setting.severity, words)


def _statistics(new: pd.DataFrame, reference: Reference, settings: Score) -> list[Figure]:
    setting = settings.statistics
    if setting.severity == "off":
        return []
    photos = new.rename(columns={"sha256": "digest"})
    limits = {"max_of_shares": setting.max, "max_of_statistics": setting.max}
    tables = drift_tables({"production": reference.rows}, photos, **limits)
    # Where no photo was there before, `all` and those that `joined` are the same.
    tables = tables[(tables.photos == "joined") & tables.quantity.isin(STATISTICS)]
    return [
        _index(row.quantity.replace("_", " "), row.now, row.psi, row.limit, setting.severity, row.words)
        for row in tables.itertuples()
    ]


def _index(quantity: str, photos: int, psi: float, limit: float, severity: str, words: str) -> Figure:
    return Figure(quantity, photos, psi, limit, severity, f"{quantity}: {words} (index {psi:.2f}, limit {limit:.2f})")


def count(scores: pd.DataFrame, at: datetime, *, computed: int, skipped: int) -> dict[str, Any]:
    """Return the counts of reports/scores.json; `at` is when the run began: its new photos were first seen then."""
    there = scores[scores.gone_at.isna()]
    good = there[there.error.isna()]
    return {
        "photos": len(good),  # that are there and scored
        "new": int((good.first_seen == pd.Timestamp(at)).sum()),  # whose content no run had seen before
        "computed": computed,  # that the model was run on
        "unsure": int(good.unsure.sum()),
        "novel": None if good.novel.isna().any() else int(good.novel.sum()),  # None: the model cannot tell
        "bad": len(there) - len(good),  # files that should be photos and cannot be read
        "skipped": skipped,  # files that nobody meant as photos
        "gone": len(scores) - len(there),  # whose rows are kept
    }


def summarise(scores: pd.DataFrame, recent: pd.DataFrame, trained: Trained) -> dict[str, Any]:
    """Return classes, days, bad files and photos to look at for reports/scores.json; arguments as above."""
    bad = scores[scores.error.notna() & scores.gone_at.isna()]
    by = ["novelty", "probability"] if recent.novelty.notna().any() else ["probability"]
    odd = recent[recent.gone_at.isna()].sort_values(by, ascending=[name == "probability" for name in by])
    return {
        "classes": _classes(recent, trained.reference),
        "days": _days(scores[scores.error.isna()]),
        "bad": bad[["path", "error"]].head(_LISTED).to_dict("records"),
        "to_look_at": _records(odd.drop_duplicates("group")[_TO_LOOK_AT].head(_LISTED)),
    }


def _classes(recent: pd.DataFrame, reference: Reference | None) -> list[dict[str, Any]]:
    """Return the photos of each class beside its share in training, the most frequent first."""
    now, then = recent.label.value_counts(), reference.rows.label.value_counts() if reference else pd.Series(dtype=int)
    found = pd.DataFrame({"photos": now, "answered": recent.label[~recent.unsure.astype(bool)].value_counts()})
    found = found.reindex(sorted({*now.index, *then.index})).fillna(0).astype(int)
    found["share"] = found.photos / max(1, len(recent))
    found["trained_share"] = (then / then.sum()).reindex(found.index, fill_value=0.0) if len(then) else None
    found = found.rename_axis("class").sort_values("photos", ascending=False, kind="stable")
    return _records(found.reset_index())


def _days(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the photos by the day on which they came in, the last days only."""
    once = scores.sort_values("first_seen", kind="stable").drop_duplicates("sha256")
    return [
        {
            "day": str(day),
            "photos": len(rows),
            "unsure": int(rows.unsure.sum()),
            "novel": None if rows.novel.isna().any() else int(rows.novel.sum()),
        }
        for day, rows in list(once.groupby(once.first_seen.dt.date))[-_DAYS:]
    ]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values, missing ones as None."""
    return json.loads(table.to_json(orient="records"))
