"""Which split an image belongs to.

A photo that once had a split keeps it: a test image of last month never becomes a training image, whatever else comes,
goes or is renamed. A new group of a class with few photos gets the split that its class lacks, in the order of names,
which are digests; so each class has its share of test. Of a class with many photos the name alone decides.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from regraft.core.errors import InvalidData
from regraft.photos.dataset import COLUMNS, SPLITS, Dataset, Split, texts_of

_NOTHING: dict[str, str] = {}
FEW = 200  # photos of a class; of more, the shares that names give are off by less than a fifth, mostly
_PLACES = {split: place for place, split in enumerate(SPLITS)}  # the higher, the better protected


def split_of(digest: str, *, val_share: float, test_share: float) -> Split:
    """Return the split of the image whose file has this SHA-256, or of the group with this name.

    The first 60 bits of the digest are a uniform number u in [0, 1): test if u < test_share, val in the next
    `val_share`, else train. Shares are therefore met on average, not exactly: n images give n * share, plus or minus
    about sqrt(n * share).

    Args:
        digest: 64 hexadecimal digits.
        val_share: expected share of val, 0 to 1.
        test_share: expected share of test, 0 to 1. With `val_share` it must stay below 1.
    """
    uniform = int(digest[:15], 16) / 16**15
    if uniform < test_share:
        return "test"
    return "val" if uniform < test_share + val_share else "train"


def place(
    used: pd.DataFrame,
    *,
    val_share: float,
    test_share: float,
    earlier: Mapping[str, str] = _NOTHING,
    by_name: bool = False,
) -> pd.DataFrame:
    """Give every photo a split, and say which are left out so that no group is in two.

    In this order: what the user gave; what the photo had earlier; the best protected of these among the photos of its
    group; what `_drawn` gives the group. A photo that the user wants in train may get another split where val or test
    is missing altogether. In a group the photos of the best protected split stay, and the others are left out: nothing
    is trained on that is tested.

    Args:
        used: digest, group, label and split (as the user gave it) of the photos.
        val_share: as for `split_of`.
        test_share: as for `split_of`.
        earlier: splits by digest.
        by_name: whether the name of a group decides in every class. So it has to be where photos may have been placed
            that `earlier` does not have: counting would then place them once more.

    Returns:
        `split` and `stays`, with the index of `used`.
    """
    user = used.split.map(_PLACES).to_numpy(float)  # NaN where there is none
    given = set(user[~np.isnan(user)])
    missing = [number for number in (1, 2) if number not in given]
    # Wanted in train while val or test is missing: some of them are placed there.
    is_open = (user == 0) & bool(missing)
    # A loop: pandas makes a table of `earlier` first, which takes more memory than everything else.
    was = np.array([_PLACES.get(earlier.get(digest, ""), np.nan) for digest in texts_of(used.digest)], float)
    was = np.where(is_open & ~np.isin(was, [0, *missing]), np.nan, was)
    fixed = np.where(np.isnan(user) | is_open, was, user)
    group = pd.factorize(used.group)[0]
    places = fixed
    for wanted, shares in (
        (np.isnan(user), (val_share, test_share)),
        (is_open, (val_share * (1 in missing), test_share * (2 in missing))),
    ):
        best = pd.Series(places).groupby(group).transform("max").to_numpy()
        best = np.where(is_open & ~np.isin(best, [0, *missing]), np.nan, best)
        places = np.where(np.isnan(places), best, places)
        rows = np.flatnonzero(wanted)
        places[rows] = _drawn(used.iloc[rows], places[rows], shares, by_name=by_name)
    stays = places == pd.Series(places).groupby(group).transform("max").to_numpy()
    return pd.DataFrame({"split": np.array(SPLITS)[places.astype(int)], "stays": stays}, used.index)


def _drawn(photos: pd.DataFrame, places: np.ndarray, shares: tuple[float, float], *, by_name: bool) -> np.ndarray:
    """Return the places of photos that the user gave none, with one for each group that has none yet.

    A group with photos of classes that have few counts for the one of these of which it has most.

    Args:
        photos: digest, group and label of all of them.
        places: theirs, NaN where there is none, shape (n,).
        shares: of val and test.
        by_name: as for `place`.
    """
    codes, labels = pd.factorize(photos.label)
    counts_once = ~photos.duplicated(["digest", "label"]).to_numpy()  # of copies one
    totals = np.bincount(codes[counts_once], minlength=len(labels))
    is_free, is_few = np.isnan(places), totals[codes] < (0 if by_name else FEW)
    is_counted = is_free & pd.Series(is_few).groupby(pd.factorize(photos.group)[0]).transform("any").to_numpy()
    places, rows = places.copy(), np.flatnonzero(is_free & ~is_counted)
    places[rows] = [
        _PLACES[split_of(name, val_share=shares[0], test_share=shares[1])] for name in texts_of(photos.group.iloc[rows])
    ]
    placed = counts_once & ~np.isnan(places)
    held = np.zeros((len(labels), len(SPLITS)), int)
    np.add.at(held, (codes[placed], places[placed].astype(int)), 1)
    classes = [_Class(*each) for each in zip(labels, totals.tolist(), held.tolist(), strict=True)]
    members: dict[str, list[int]] = {}
    rows = np.flatnonzero(is_counted)
    for name, row in zip(texts_of(photos.group.iloc[rows]), rows.tolist(), strict=True):
        members.setdefault(name, []).append(row)
    for name in sorted(members):
        own = Counter(int(codes[row]) for row in members[name] if counts_once[row])
        small = (each for each in own if classes[each].total < FEW)
        code = max(small, key=lambda each: (own[each], classes[each].label))
        place = _lacking(classes[code], own[code], shares)
        places[members[name]] = place
        for each, count in own.items():
            classes[each].held[place] += count
    return places


class _Class:
    """A class: its photos, and those that it has in each place so far."""

    def __init__(self, label: str, total: int, held: list[int]) -> None:
        self.label, self.total, self.held = label, total, held
        # A number in (0, 1) that the class has drawn.
        self.fraction = (int(hashlib.sha256(label.encode()).hexdigest()[:12], 16) + 0.5) / 16**12


def _lacking(photos: _Class, size: int, shares: tuple[float, float]) -> int:
    """Return the place that a group of so many photos of a class gets: test, then val, as far as its class lacks them.

    Of single photos, floor(share * total + 1 - fraction) go to test, and with the other end of the fraction to val: so
    a class that is due half a photo of each gets one of them, and over many classes the shares are met. A larger group
    is taken with the chance that its size leaves. Some photos stay to train on.
    """
    _, val, test = photos.held
    if val + test + size < photos.total:
        if test + photos.fraction * size <= shares[1] * photos.total:
            return 2
        if val + (1 - photos.fraction) * size <= shares[0] * photos.total:
            return 1
    return 0


def build_dataset(
    manifest: pd.DataFrame,
    folder: Path,
    *,
    val_share: float,
    test_share: float,
    earlier: Mapping[str, str] = _NOTHING,
    by_name: bool = False,
) -> Dataset:
    """Give every usable image a class index and a split, as `place` does it.

    Copies of one file under one label in one split count once.

    Raises:
        InvalidData: fewer than two classes.
    """
    used = manifest.loc[manifest.verdict == "use", ["digest", "path", "label", "split", "format", "group"]]
    class_names = sorted(used.label.unique())
    if len(class_names) < 2:
        raise InvalidData(
            f"at least two classes are needed to train a classifier. Found {len(class_names)}: "
            f"{', '.join(class_names) or 'no usable image at all'}. Add a folder of photos for each further class."
        )
    placed = place(used, val_share=val_share, test_share=test_share, earlier=earlier, by_name=by_name)
    rows = pd.DataFrame(
        {
            "digest": used.digest,
            "path": used.path,
            "class_name": used.label,
            "class_index": pd.Categorical(used.label, categories=class_names).codes,
            "split": placed.split,
            "format": used.format,
        }
    ).astype(COLUMNS)
    rows = rows[placed.stays]
    rows = rows.sort_values(["digest", "class_index", "split", "path"], ignore_index=True)
    rows = rows.drop_duplicates(["digest", "class_index", "split"], ignore_index=True)
    return Dataset(rows, class_names, folder)
