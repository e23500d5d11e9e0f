"""Which split an image belongs to.

The split follows from the image's content alone, so it does not change when other images come, go or are renamed: a
test image of last month never becomes a training image.
"""

from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_of(digest: str, *, val_share: float, test_share: float) -> Split:
    """Return the split of the image whose file has this SHA-256.

    The first 60 bits of the digest are a uniform number u in [0, 1): test if u < test_share, val in the next
    `val_share`, else train. Shares are therefore met on average, not exactly: n images give n * share, plus or minus
    about sqrt(n * share).

    Args:
        digest: SHA-256 of the file's bytes, 64 hexadecimal digits.
        val_share: expected share of val, 0 to 1.
        test_share: expected share of test, 0 to 1. With `val_share` it must stay below 1.
    """
    uniform = int(digest[:15], 16) / 16**15
    if uniform < test_share:
        return "test"
    return "val" if uniform < test_share + val_share else "train"
