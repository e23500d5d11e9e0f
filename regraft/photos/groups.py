"""Groups of photos that say the same thing twice: near-duplicates, or what labels.csv names as one group.

Photos of a group are no independent evidence. The manifest has the groups; the data set has none.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from regraft.photos.dataset import Dataset
from regraft.photos.manifest import slices_of


def groups_of(dataset: Dataset, manifest: pd.DataFrame) -> np.ndarray:
    """Return the name of the group of each image, shape (n,); an image that the manifest does not have is its own."""
    return np.array(groups_of_digests(dataset.rows.digest.tolist(), manifest[manifest.verdict == "use"]))


def groups_of_digests(digests: Sequence[str], used: pd.DataFrame) -> list[str]:
    """Return the name of the group of each photo; one that the manifest does not have is its own.

    Args:
        digests: SHA-256 of the photos' files.
        used: digest and group of the photos that the manifest uses.
    """
    names = dict(zip(used.digest.tolist(), used.group.tolist(), strict=True))
    found = [names.get(digest) for digest in digests]
    return [name if isinstance(name, str) else digest for name, digest in zip(found, digests, strict=True)]


def hashed_given_groups(manifest: pd.DataFrame) -> pd.Series:
    """Return the SHA-256 of the group that labels.csv gives each photo; missing where it gives none.

    Records keep this in place of the name, which may be that of a patient, for as long as there is a model.
    """
    if "given_group" not in manifest:
        return pd.Series(None, manifest.index, dtype="str")
    names = manifest.given_group.dropna().unique().tolist()
    hashed = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    return manifest.given_group.map(hashed).astype("str")


def slices_of_images(dataset: Dataset, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the slices that labels.csv names, a column of texts each, with a row per image; missing where it has none.

    Shape (n, number of slices). Of copies of one file, the one that stands in the data set counts.
    """
    rows = manifest[manifest.verdict == "use"].set_index("path").loc[dataset.rows.path]
    return pd.DataFrame(
        {name: rows[f"slice.{name}"].to_numpy() for name in slices_of(manifest)}, index=dataset.rows.index
    )


def first_of_each(groups: np.ndarray) -> np.ndarray:
    """Return whether each image is the first of its group, bool, shape (n,); a data set's order is that of digests."""
    return ~pd.Series(groups).duplicated().to_numpy()


def independent_images(groups: np.ndarray, weights: np.ndarray | None = None) -> int:
    """Return how many independent images tell as much of a share, if images of one group are all right or all wrong.

    That is n_eff = (sum of m)^2 / sum of m^2 over the sizes m of groups, or the sums of what their images count for,
    rounded down: n where nothing is grouped and all count the same.
    Source: Kish, "Survey sampling", 1965, section 8.2: the variance of a mean under unequal weights.
    """
    if weights is not None:
        sizes = np.bincount(np.unique(groups, return_inverse=True)[1], weights)
        return int(round(sizes.sum() ** 2 / (sizes**2).sum(), 6)) if len(sizes) else 0
    sizes = np.unique(groups, return_counts=True)[1].astype(np.int64)
    return int(sizes.sum() ** 2 // (sizes**2).sum()) if len(sizes) else 0
