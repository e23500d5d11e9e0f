"""Which photos are looked at where all would take long and tell no more: a sample that stays as photos come and go."""

from collections.abc import Sequence

import numpy as np

from regraft.photos.dataset import SPLITS, Dataset, Split

_LEAST = 20  # photos of each class that come first


def stable_sample(digests: Sequence[str], class_indices: np.ndarray, size: int) -> np.ndarray:
    """Return the positions of as many photos as asked for, in order; each class has about the share that it has of all.

    Photos stand in one order, and a sample is its beginning. So a smaller sample is part of a larger one, and one photo
    more or less brings at most one photo in and puts at most one out. First come 20 photos of each class, those
    of the smallest digests by their last 16 digits; then always the next one of the class that is furthest behind its
    share.

    Args:
        digests: SHA-256 of the photos in hexadecimal digits. Rows of one class with one digest are one photo in several
            views, and all of them are taken or none.
        class_indices: int, shape (len(digests),).
        size: photos that are wanted, 0 or more; if there are fewer, all are taken.

    Source: Webster's method of apportionment, which alone of those that keep shares is stable in this sense: Balinski &
    Young, "Fair Representation", 1982.
    """
    if not len(digests):
        return np.zeros(0, np.intp)
    numbers = draws(digests)
    order = np.lexsort((numbers, class_indices))
    numbers, classes = numbers[order], class_indices[order]
    is_class_new = np.diff(classes, prepend=-1) != 0
    is_new = is_class_new | (np.diff(numbers, prepend=numbers[:1]) != 0)
    photo_of = np.cumsum(is_new) - 1  # of each row
    numbers, class_of = numbers[is_new], (np.cumsum(is_class_new) - 1)[is_new]
    counts = np.bincount(class_of)
    ranks = np.arange(len(class_of)) - (np.cumsum(counts) - counts)[class_of]
    place = np.where(ranks < _LEAST, ranks - _LEAST, (ranks + 0.5) / counts[class_of])
    is_taken = np.zeros(len(place), bool)
    is_taken[np.lexsort((numbers, place))[:size]] = True
    return np.sort(order[is_taken[photo_of]])


def draws(digests: Sequence[str]) -> np.ndarray:
    """Return the number that each photo has drawn, uint64: of one class the smallest are in a sample."""
    # The first digits decide on the split of many photos (`regraft.photos.splitting`).
    return np.fromiter((int(digest[-16:], 16) for digest in digests), np.uint64, len(digests))


def sample_of(dataset: Dataset, size: int) -> Dataset:
    """Return about as many photos of a data set, of all its splits; each class of each split has its share."""
    rows = dataset.rows
    if len(rows) <= size:
        return dataset
    taken = stable_sample(rows.digest.tolist(), strata_of(dataset), size)
    return dataset.with_rows(rows.iloc[taken].reset_index(drop=True))


def with_sample(dataset: Dataset, split: Split, size: int) -> Dataset:
    """Return a data set of whose photos of one split at most so many are left: a sample, each class with its share."""
    part = dataset.of(split)
    if len(part) <= size:
        return dataset
    rows = dataset.rows
    stays = (rows.split != split) | rows.digest.isin(sample_of(part, size).rows.digest)
    return dataset.with_rows(rows[stays].reset_index(drop=True))


def strata_of(dataset: Dataset) -> np.ndarray:
    """Return a number for the split and the class of each photo, int, shape (photos,)."""
    splits = dataset.rows.split.map({split: number for number, split in enumerate(SPLITS)}).to_numpy(int)
    return splits * len(dataset.class_names) + dataset.rows.class_index.to_numpy(int)
