"""How the photos' figures are distributed today, and as those that the model in production was trained on (drift).

Each figure of the photos is cut at the deciles that it had then, and the shares of photos per bin are compared by the
population stability index

    PSI = sum over bins of (p - q) * ln(p / q),        p: share now, q: share then

Below 0.1 nothing has moved, above 0.25 much has (Siddiqi, Credit Risk Scorecards, 2006). Of few photos PSI is large by
chance alone: without any drift it is about (1/n + 1/m) times a chi-square variable with (bins - 1) degrees of freedom,
for n photos then and m now (Yurdakul, Statistical Properties of Population Stability Index, 2018). So a move counts
only if it is also above what chance exceeds once in a thousand times, in all comparisons of a folder together.

All photos are compared, and once more only those that joined since: one drifted photo in a hundred vanishes among all.
Photos of one group count once, and a photo whose group was there before has not joined. Photos then count as much as
their class has a share now: another mix of classes is a matter of the classes' shares alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pandas import DataFrame, Series

STATISTICS = ("brightness", "contrast", "sharpness", "entropy", "shorter_side", "aspect_ratio")
FEWEST_JOINED = 20  # photos that joined; fewer say nothing
_FEWEST_OF_CLASS = 5  # former photos; fewer say nothing of new ones of that class
MUCH = 0.25  # a population stability index from which on much has moved (Siddiqi)
COLUMNS = {
    "quantity": "str",  # class shares, or one of STATISTICS
    "photos": "str",  # all, or joined: those that the model was not trained on
    "against": "str",  # which model: production, or the anchor
    "then": "int64",  # photos that were compared; of those with weights, how many equal ones say as much
    "now": "int64",
    "psi": "float64",
    "limit": "float64",  # MUCH, or what chance hardly exceeds, whichever is larger
    "words": "str",  # what moved where
}
_CHANCE = 0.001  # of a false alarm in any comparison
_COMPARISONS = 2 * (1 + len(STATISTICS))  # each has its part of the chance (Bonferroni)
_DECILES = np.linspace(0.1, 0.9, 9)
_MOVES = 3  # classes that the words name
_BINS = 30  # of a histogram


def with_shape(rows: DataFrame) -> DataFrame:
    """Return a copy of rows of the manifest with the columns shorter_side and aspect_ratio."""
    sides = rows[["width", "height"]].astype("float64")
    shorter = sides.min(axis=1)
    return rows.assign(shorter_side=shorter, aspect_ratio=sides.max(axis=1) / shorter)


def drift_tables(references: Mapping[str, DataFrame], now: DataFrame) -> DataFrame:
    """Compare the used photos of today's data folder with those of former versions.

    Args:
        references: used rows of the manifest that a model was trained on, by the model: production, anchor.
        now: used rows of today's manifest.

    Returns:
        A table with the columns of `COLUMNS`, one row per quantity that could be compared, all photos first. The chance
        of a false alarm is that of all rows together.
    """
    groups, now = dict(zip(now.digest.tolist(), now.group.tolist(), strict=True)), with_shape(now)
    rows = []
    for against, then in references.items():
        # Of a photo that is no longer there nothing but its digest tells where it belongs.
        then = with_shape(then.assign(group=[groups.get(digest, digest) for digest in then.digest.tolist()]))
        then, known = _one_per_group(then), set(then.group.tolist())
        is_new = np.array([group not in known for group in now.group.tolist()], bool)  # isin of pandas is slow for text
        joined = now[is_new]
        compared = {"all": _one_per_group(now), "joined": _one_per_group(joined)}
        for photos, some in compared.items():
            if photos == "all" or len(some) >= FEWEST_JOINED:
                # New and vanished classes are no moved shares.
                found = _compared(then, some, sorted(set(then.label) & set(now.label)), len(references))
                rows += [[quantity, photos, against, *rest] for quantity, *rest in found]
    return DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _one_per_group(rows: DataFrame) -> DataFrame:
    """The first photo of each group, once per label."""
    return rows.drop_duplicates(["group", "label"])


def of_known_classes(now: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Return of which photos there were enough of their class before to compare them with: bool, shape of `now`.

    Args:
        now: names of the photos' classes.
        then: the same of the former photos.
    """
    classes, counts = np.unique(then, return_counts=True)
    return np.isin(now, classes[counts >= _FEWEST_OF_CLASS])


def class_weights(then: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Return weights of photos with which their classes have the shares that they have now: float64, shape of `then`.

    Args:
        then: names of the photos' classes.
        now: the same of the photos that they are compared with; of classes that `then` has, or they do not count.
    """
    classes, of_all = np.unique(np.concatenate([then, now]), return_inverse=True)
    before, after = (np.bincount(part, minlength=len(classes)) for part in np.split(of_all, [len(then)]))
    weights = np.divide(after, before, out=np.zeros(len(classes)), where=before > 0)[of_all[: len(then)]]
    return weights * len(then) / max(weights.sum(), 1e-12)


def effective_number(weights: np.ndarray) -> float:
    """Return how many photos of equal weight say as much as these (Kish, Survey Sampling, 1965)."""
    return float(weights.sum() ** 2 / max(np.square(weights).sum(), 1e-12))


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the smallest values that at least these shares of the weight do not exceed: float64, shape of `shares`."""
    order = np.argsort(values, kind="stable")
    up_to = np.cumsum(weights[order]) / weights.sum()
    return values[order][np.minimum(np.searchsorted(up_to, shares - 1e-9), len(values) - 1)]


def population_stability_index(then: np.ndarray, now: np.ndarray) -> float:
    """Return the PSI of two arrays of counts per bin.

    Empty bins would make it infinite. So half a photo per bin is added to both, spread as both together are: sparse
    bins make the index smaller, never larger.
    """
    together = (then + now + 0.5) / (then + now + 0.5).sum()
    share_then, share_now = (
        (counts + 0.5 * len(counts) * together) / (counts.sum() + 0.5 * len(counts)) for counts in (then, now)
    )
    return float(((share_now - share_then) * np.log(share_now / share_then)).sum())


def psi_by_chance(bins: int, then: float, now: float, chance: float = _CHANCE) -> float:
    """Return what the PSI of so many photos exceeds with this probability if nothing has moved."""
    from scipy.special import chdtri  # scipy.stats has the same and takes a second to import

    return float(chdtri(bins - 1, chance)) * (1 / then + 1 / now)


def _compared(then: DataFrame, now: DataFrame, classes: list[str], references: int) -> list[list[object]]:
    former = then.label.to_numpy(str)
    known = now[of_known_classes(now.label.to_numpy(str), former)]
    weights = class_weights(former, known.label.to_numpy(str))
    quantities = [("class shares", *_shares(then.label, now.label, classes))]
    quantities += [(name, *_deciles(then[name], weights, known[name].dropna())) for name in STATISTICS]
    rows = []
    for quantity, counts_then, counts_now, words in quantities:
        n, m = round(float(counts_then.sum())), int(counts_now.sum())
        # Too few that have the figure, or are of a class that was there before.
        if min(n, m) < FEWEST_JOINED or len(counts_then) < 2:
            continue
        chance = psi_by_chance(len(counts_then), n, m, _CHANCE / (_COMPARISONS * references))
        psi = population_stability_index(counts_then, counts_now)
        rows.append([quantity, n, m, psi, max(MUCH, chance), words])
    return rows


def _shares(then: Series, now: Series, classes: list[str]) -> tuple[np.ndarray, np.ndarray, str]:
    """Photos per class, and what moved most."""
    before, after = (labels.value_counts().reindex(classes, fill_value=0) for labels in (then, now))
    if not before.sum() or not after.sum():
        return before.to_numpy(), after.to_numpy(), ""
    shares = DataFrame({"then": before / before.sum(), "now": after / after.sum()})
    order = (shares.now - shares.then).abs().sort_values(ascending=False, kind="stable").index[:_MOVES]
    words = ", ".join(f"{label} {shares.then[label]:.0%} -> {shares.now[label]:.0%}" for label in order)
    return before.to_numpy(), after.to_numpy(), words


def _deciles(then: Series, weights: np.ndarray, now: Series) -> tuple[np.ndarray, np.ndarray, str]:
    """Photos per bin between the deciles of `then`, of as many as the weights are worth, and how quantiles moved."""
    used = then.notna().to_numpy() & (weights > 0)
    values, weights = then.to_numpy()[used], weights[used]
    if not len(values) or now.empty:
        return np.zeros(0), np.zeros(0, int), ""
    deciles, times = np.unique(weighted_quantiles(values, weights, _DECILES), return_counts=True)
    # A value that is several deciles at once, such as the side of photos of one size, is a bin of its own, with 1 %
    # around it: 400 x 533 and 200 x 266 are one shape.
    single, several = deciles[times == 1], deciles[times > 1]
    edges = np.unique(np.concatenate([single, several * 0.99, np.maximum(several * 1.01, np.nextafter(several, 1))]))
    before = np.bincount(np.searchsorted(edges, values, side="right"), weights, len(edges) + 1)
    after = np.bincount(np.searchsorted(edges, now, side="right"), minlength=len(edges) + 1)
    moved = " -> ".join(_quantiles(*side) for side in ((values, weights), (now.to_numpy(), np.ones(len(now)))))
    return before * effective_number(weights) / weights.sum(), after, f"10, 50, 90 % below {moved}"


def _quantiles(values: np.ndarray, weights: np.ndarray) -> str:
    found = weighted_quantiles(values, weights, np.array([0.1, 0.5, 0.9]))
    return ", ".join(f"{value:.3g}" for value in found)


def histograms(
    now: DataFrame, former: DataFrame | None, limits: Mapping[str, tuple[float | None, float | None]]
) -> dict[str, dict[str, Any]]:
    """Count the used photos per bin of each statistic.

    Args:
        now: rows with the columns that `limits` names.
        former: the same of the photos that the model in production was trained on; None where there are none.
        limits: lowest and highest value that a photo should have, by column; None where there is no such limit.

    Returns:
        By column, JSON-able: `edges` of the bins, one more than there are bins, or none without any photo; the counts
        `now` and `in_production`, the latter None without `former`; `is_logarithmic`, how the edges are spaced;
        `lowest` and `highest`, the limits.
    """
    found = {}
    for name, (lowest, highest) in limits.items():
        parts = [np.zeros(0) if rows is None else rows[name].dropna().to_numpy(float) for rows in (now, former)]
        edges, is_logarithmic = _edges(np.concatenate(parts))
        counts = [np.histogram(part, edges)[0].tolist() if len(edges) else [] for part in parts]
        found[name] = {
            "edges": edges.tolist(),
            "now": counts[0],
            "in_production": None if former is None else counts[1],
            "is_logarithmic": is_logarithmic,
            "lowest": lowest,
            "highest": highest,
        }
    return found


def _edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    if not len(values):
        return np.zeros(0), False
    smallest, largest = values.min(), values.max()
    # What ranges over powers of ten is shown on a logarithmic scale.
    is_logarithmic = bool(smallest > 0 and largest / smallest > 100)
    margin = 0.1 * abs(smallest) + 0.1 if smallest == largest else 0  # photos of one size are one bar in the middle
    space = np.geomspace if is_logarithmic else np.linspace
    return space(smallest - margin, largest + margin, _BINS + 1), is_logarithmic
