"""Drift: whether today's photos are distributed as those that the model in production was trained on.

Each figure of the photos is cut at the deciles that it had then, and the shares of photos per bin are compared by the
population stability index

    PSI = sum over bins of (p - q) * ln(p / q),        p: share now, q: share then

Below 0.1 nothing has moved, above 0.25 much has (Siddiqi, Credit Risk Scorecards, 2006). Of few photos PSI is large by
chance alone: without any drift it is about (1/n + 1/m) times a chi-square variable with (bins - 1) degrees of freedom,
for n photos then and m now (Yurdakul, Statistical Properties of Population Stability Index, 2018). So a move counts
only if it is also above what chance exceeds once in a thousand times, in all comparisons of a folder together.

All photos are compared, and once more only those that joined since: one drifted photo in a hundred vanishes among all.
"""

import numpy as np
from pandas import DataFrame, Series

STATISTICS = ("brightness", "contrast", "sharpness", "entropy", "shorter_side", "aspect_ratio")
FEWEST_JOINED = 20  # photos that joined; fewer say nothing
COLUMNS = {
    "quantity": "str",  # class shares, or one of STATISTICS
    "photos": "str",  # all, or joined: those that the model in production was not trained on
    "then": "int64",  # photos that were compared
    "now": "int64",
    "psi": "float64",
    "limit": "float64",  # that of params.yaml, or what chance hardly exceeds, whichever is larger
    "words": "str",  # what moved where
}
_CHANCE = 0.001  # of a false alarm in any comparison
_COMPARISONS = 2 * (1 + len(STATISTICS))  # each has its part of the chance (Bonferroni)
_DECILES = np.linspace(0.1, 0.9, 9)
_MOVES = 3  # classes that the words name


def with_shape(rows: DataFrame) -> DataFrame:
    """Return a copy of rows of the manifest with the columns shorter_side and aspect_ratio."""
    sides = rows[["width", "height"]].astype("float64")
    shorter = sides.min(axis=1)
    return rows.assign(shorter_side=shorter, aspect_ratio=sides.max(axis=1) / shorter)


def drift_table(then: DataFrame, now: DataFrame, *, max_of_shares: float, max_of_statistics: float) -> DataFrame:
    """Compare the used photos of two versions of a data folder.

    Args:
        then: used rows of the manifest that the model in production was trained on.
        now: used rows of today's manifest.
        max_of_shares: largest population stability index of the classes' shares that is no drift.
        max_of_statistics: largest one of each of `STATISTICS`.

    Returns:
        A table with the columns of `COLUMNS`, one row per quantity that could be compared, all photos first. A file
        counts once per label.
    """
    then, now = (with_shape(rows.drop_duplicates(["digest", "label"])) for rows in (then, now))
    known = set(then.digest.tolist())  # isin of pandas is slow for text
    joined = now[[digest not in known for digest in now.digest.tolist()]]
    # New and vanished classes are no moved shares.
    lasting = sorted(set(then.label) & set(now.label))
    largest = {"class shares": max_of_shares} | dict.fromkeys(STATISTICS, max_of_statistics)
    rows = _compared(then, now, lasting, "all", largest)
    if len(joined) >= FEWEST_JOINED:
        rows += _compared(then, joined, lasting, "joined", largest)
    return DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


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


def psi_by_chance(bins: int, then: int, now: int, chance: float = _CHANCE) -> float:
    """Return what the PSI of so many photos exceeds with this probability if nothing has moved."""
    from scipy.special import chdtri  # scipy.stats has the same and takes a second to import

    return float(chdtri(bins - 1, chance)) * (1 / then + 1 / now)


def _compared(
    then: DataFrame, now: DataFrame, classes: list[str], photos: str, largest: dict[str, float]
) -> list[list[object]]:
    rows = []
    quantities = [("class shares", *_shares(then.label, now.label, classes))]
    quantities += [(name, *_deciles(then[name].dropna(), now[name].dropna())) for name in STATISTICS]
    for quantity, counts_then, counts_now, words in quantities:
        n, m = int(counts_then.sum()), int(counts_now.sum())
        # Too few that have the figure, or are of a class that was there before.
        if min(n, m) < FEWEST_JOINED or len(counts_then) < 2:
            continue
        limit = max(largest[quantity], psi_by_chance(len(counts_then), n, m, _CHANCE / _COMPARISONS))
        psi = population_stability_index(counts_then, counts_now)
        rows.append([quantity, photos, n, m, psi, limit, words])
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


def _deciles(then: Series, now: Series) -> tuple[np.ndarray, np.ndarray, str]:
    """Photos per bin between the deciles of `then`, and how its quantiles moved."""
    if then.empty or now.empty:
        return np.zeros(0, int), np.zeros(0, int), ""
    deciles, times = np.unique(np.quantile(then, _DECILES, method="inverted_cdf"), return_counts=True)
    # A value that is several deciles at once, such as the side of photos of one size, is a bin of its own, with 1 %
    # around it: 400 x 533 and 200 x 266 are one shape.
    single, several = deciles[times == 1], deciles[times > 1]
    edges = np.unique(np.concatenate([single, several * 0.99, np.maximum(several * 1.01, np.nextafter(several, 1))]))
    before, after = (
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) for values in (then, now)
    )
    return before, after, f"10, 50, 90 % below {_quantiles(then)} -> {_quantiles(now)}"


def _quantiles(values: Series) -> str:
    return ", ".join(f"{value:.3g}" for value in np.quantile(values, (0.1, 0.5, 0.9)))
