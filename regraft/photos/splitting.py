"""Which split an image belongs to.

The split of a group follows from its name, which is a digest, and a photo that once had a split keeps it: a test image
of last month never becomes a training image, whatever else comes, goes or is renamed.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from regraft.errors import InvalidData
from regraft.photos.dataset import COLUMNS, SPLITS, Dataset, Split, texts_of

_NOTHING: dict[str, str] = {}
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
    used: pd.DataFrame, *, val_share: float, test_share: float, earlier: Mapping[str, str] = _NOTHING
) -> pd.DataFrame:
    """Give every photo a split, and say which are left out so that no group is in two.

    In this order: what the user gave; what the photo had earlier; the best protected of these among the photos of its
    group; `split_of` of the group's name. A photo that the user wants in train may get another split where val or test
    is missing altogether. In a group the photos of the best protected split stay, and the others are left out: nothing
    is trained on that is tested.

    Args:
        used: digest, group and split (as the user gave it) of the photos.
        val_share: as for `split_of`.
        test_share: as for `split_of`.
        earlier: splits by digest.

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
    best = pd.Series(fixed).groupby(group).transform("max").to_numpy()
    best = np.where(is_open & ~np.isin(best, [0, *missing]), np.nan, best)
    places = np.where(np.isnan(fixed), best, fixed)
    for wanted, shares in (
        (~is_open, (val_share, test_share)),
        (is_open, (val_share * (1 in missing), test_share * (2 in missing))),
    ):
        rows = np.flatnonzero(np.isnan(places) & wanted)
        places[rows] = [
            _PLACES[split_of(name, val_share=shares[0], test_share=shares[1])]
            for name in texts_of(used.group.iloc[rows])
        ]
    stays = places == pd.Series(places).groupby(group).transform("max").to_numpy()
    return pd.DataFrame({"split": np.array(SPLITS)[places.astype(int)], "stays": stays}, used.index)


def build_dataset(
    manifest: pd.DataFrame,
    folder: Path,
    *,
    val_share: float,
    test_share: float,
    earlier: Mapping[str, str] = _NOTHING,
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
    placed = place(used, val_share=val_share, test_share=test_share, earlier=earlier)
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
