"""Which photos are looked at where all would take long and tell no more: a sample that stays as photos come and go."""

from collections.abc import Sequence

import numpy as np

from regraft.photos.dataset import SPLITS, Dataset, Split

# Photos of test that the figures and the gate are about, and of val that the export decides on: of 20,000 photos an
# accuracy of 90 % is known to 0.42 points.
JUDGED = 20_000


def stable_sample(digests: Sequence[str], class_indices: np.ndarray, size: int, *, least: int = 0) -> np.ndarray:
    """Return the positions of as many photos as asked for, in order; each class has the share that it has of all.

    Photos stand in one order, and a sample is its beginning. So a smaller sample is part of a larger one, and one photo
    more or less brings at most one photo in and puts at most one out. Next is always one of the class that is
    furthest behind its share: the photo of the smallest digest by its last 16 digits.

    Args:
        digests: SHA-256 of the photos in hexadecimal digits. Rows of one class with one digest are one photo in several
            views, and all of them are taken or none.
        class_indices: int, shape (len(digests),).
        size: photos that are wanted, 0 or more; if there are fewer, all are taken.
        least: photos of each class that come first, if it has so many. What judges asks for none, since its figures
            would be those of another mix of classes; a class with less than half a photo of the sample is then absent.
            What is trained on asks for one.

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
    place = np.where(ranks < least, ranks - least, (ranks + 0.5) / counts[class_of])
    is_taken = np.zeros(len(place), bool)
    is_taken[np.lexsort((numbers, place))[:size]] = True
    return np.sort(order[is_taken[photo_of]])


def draws(digests: Sequence[str]) -> np.ndarray:
    """Return the number that each photo has drawn, uint64: of one class the smallest are in a sample."""
    # The first digits decide on the split of many photos (`regraft.photos.splitting`).
    return np.fromiter((int(digest[-16:], 16) for digest in digests), np.uint64, len(digests))


def sample_of(dataset: Dataset, size: int, *, least: int = 0) -> Dataset:
    """Return about as many photos of a data set, of all its splits; each class of each split has its share.

    `least` is as for `stable_sample`, and each class of each split has so many.
    """
    rows = dataset.rows
    if len(rows) <= size:
        return dataset
    taken = stable_sample(rows.digest.tolist(), strata_of(dataset), size, least=least)
    return dataset.with_rows(rows.iloc[taken].reset_index(drop=True))


def training_sample(dataset: Dataset, size: int) -> Dataset:
    """Return the sample of train and val that is fine-tuned on: no class is without a photo."""
    return sample_of(dataset.of("train", "val"), size, least=1)


def with_sample(dataset: Dataset, split: Split, size: int) -> Dataset:
    """Return a data set of whose photos of one split at most so many are left: a sample, each class with its share."""
    rows = dataset.rows
    positions = np.flatnonzero(rows.split == split)
    if len(positions) <= size:
        return dataset
    part = rows.iloc[positions]
    stays = (rows.split != split).to_numpy(copy=True)
    stays[positions[stable_sample(part.digest.tolist(), part.class_index.to_numpy(), size)]] = True
    return dataset.with_rows(rows[stays].reset_index(drop=True))


def strata_of(dataset: Dataset) -> np.ndarray:
    """Return a number for the split and the class of each photo, int, shape (photos,)."""
    splits = dataset.rows.split.map({split: number for number, split in enumerate(SPLITS)}).to_numpy(int)
    return splits * len(dataset.class_names) + dataset.rows.class_index.to_numpy(int)
