"""Where the images went: counts per class, split, group and slice, and what was left out and why; is it enough?"""

from pathlib import Path
from typing import Any

import pandas as pd

from regraft.core.errors import InvalidData, some
from regraft.photos.dataset import SPLITS, Dataset, texts_of
from regraft.photos.manifest import slices_of
from regraft.photos.split_record import Earlier, SplitRecord

_MOST_LEFT_OUT = 0.1  # share of the images
_MOST_VALUES = 30  # of a slice; a column of numbers or of names has thousands


def split_table(dataset: Dataset) -> pd.DataFrame:
    """Return the number of images per class (rows) and split (columns train, val, test)."""
    counts = pd.crosstab(dataset.rows.class_name, dataset.rows.split)
    return counts.reindex(index=dataset.class_names, columns=list(SPLITS), fill_value=0)


def dataset_report(
    layout: str, manifest: pd.DataFrame, dataset: Dataset, earlier: Earlier, record: SplitRecord
) -> dict[str, Any]:
    """Return reports/dataset.json.

    Args:
        layout: of the data folder.
        manifest: that the data set was built from.
        dataset: from `build_dataset`.
        earlier: splits that it was built with.
        record: that belongs to it.
    """
    counts = split_table(dataset)
    used = manifest[manifest.verdict == "use"]
    left_out = _left_out(used, dataset, earlier)
    kept = {digest for digest in texts_of(dataset.rows.digest) if digest in record.splits}
    return {
        "layout": layout,
        "images": len(dataset),
        "copies_left_out": len(used) - len(dataset) - len(left_out),
        "left_out": left_out,
        "splits": {split: int(counts[split].sum()) for split in SPLITS},
        "classes": {name: {split: int(row[split]) for split in SPLITS} for name, row in counts.iterrows()},
        "not_in_test": [str(name) for name, row in counts.iterrows() if row["test"] == 0],
        "groups": _groups(used),
        "slices": _slices(used, dataset),
        "given_splits": _given(used, dataset),
        # Photos of groups that their name would place otherwise, and photos that may come back.
        "kept_splits": len(kept),
        "absent_splits": len(record.splits) - len(kept),
        "note": earlier.note,
    }


def check_left_out(report: dict[str, Any], memory: list[Path]) -> None:
    """Raise InvalidData if earlier splits leave out too many photos.

    That is so where photos become groups that were none before: somebody gave groups, or made near-duplicates of more.

    Args:
        report: from `dataset_report`.
        memory: the files that know the earlier splits.
    """
    left_out = [f"{entry['path']} ({entry['why']})" for entry in report["left_out"] if entry["was_elsewhere"]]
    images = report["images"] + len(left_out)
    if len(left_out) > _MOST_LEFT_OUT * images:
        raise InvalidData(
            f"{len(left_out)} of {images} images would be left out, because photos that are one group now had "
            f"different splits: {some(left_out)}. A photo never changes its split by itself. To place all photos anew, "
            f"remove {' and '.join(map(str, memory))} and run again: figures can then not be compared with earlier "
            f"ones. To keep the splits, take back the groups, or the validate_data.max_hash_distance, that joined "
            f"these photos."
        )


def check_splits(dataset: Dataset, manifest: pd.DataFrame) -> None:
    """Raise InvalidData where a class has no training image, or val or test no image at all.

    A class may be absent from val or test.
    """
    used = manifest[manifest.verdict == "use"]
    counts = split_table(dataset)
    to_train = " to the train folder" if used.split.notna().any() else ""
    untrained = [f"'{name}' ({row.sum()} image(s))" for name, row in counts.iterrows() if row["train"] == 0]
    if untrained:
        raise InvalidData(
            f"every class needs images to train on. {len(untrained)} class(es) have none in train: "
            f"{', '.join(untrained[:10])}. Add images of these classes{to_train}."
        )
    for split in ("val", "test"):
        if counts[split].sum() == 0:
            raise InvalidData(
                f"{split} has no image, out of {len(dataset)} in {used.group.nunique()} group(s). Add images, raise "
                f"preprocess.{split}_share, or give the split yourself in folders train, val and test."
            )


def _left_out(used: pd.DataFrame, dataset: Dataset, earlier: Earlier) -> list[dict[str, Any]]:
    """The photos of which no copy is in the data set: their groups are in better protected splits."""
    # Sets and loops: pandas looks up a million texts ten times more slowly.
    present = set(texts_of(dataset.rows.digest))
    parted = used[[digest not in present for digest in texts_of(used.digest)]]
    if parted.empty:
        return []
    # A group is in one split.
    split_of = dict(zip(texts_of(dataset.rows.digest), texts_of(dataset.rows.split), strict=True))
    of_group = {
        group: split_of[digest]
        for digest, group in zip(texts_of(used.digest), texts_of(used.group), strict=True)
        if digest in split_of
    }
    entries = []
    for row in parted.itertuples():
        where, was = of_group[row.group], earlier.splits.get(row.digest)
        if isinstance(row.split, str):
            why = f"it is in your {row.split}, and its group is in {where}"
        else:
            why = f"it was in {was}, and its group is in {where}" if was else f"its group is in {where}"
        entries.append(
            {"path": row.path, "why": why, "was_elsewhere": was is not None and not isinstance(row.split, str)}
        )
    return entries


def _given(used: pd.DataFrame, dataset: Dataset) -> int:
    """Return how many images have the split that the user gave them."""
    given = used[used.split.notna()]
    wanted = set(zip(texts_of(given.digest), texts_of(given.label), texts_of(given.split), strict=True))
    rows = dataset.rows
    return sum(row in wanted for row in zip(*map(texts_of, (rows.digest, rows.class_name, rows.split)), strict=True))


def _groups(used: pd.DataFrame) -> dict[str, int]:
    """How many groups there are, photos in groups of more than one, and groups that the user gave."""
    groups = used.group[~used.digest.duplicated()]
    return {
        "groups": groups.nunique(),
        "photos_in_larger": int(groups.duplicated(keep=False).sum()),
        "given": int(used.given_group.nunique()) if "given_group" in used else 0,
    }


def _slices(used: pd.DataFrame, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Images of the data set per value of each slice, the most frequent values first."""
    if not slices_of(used):
        return {}
    slices, paths = {}, set(dataset.rows.path.tolist())
    rows = used[[path in paths for path in used.path.tolist()]]
    for name in slices_of(used):
        counts = rows[f"slice.{name}"].value_counts()
        slices[name] = {
            "values": len(counts),
            "images": {str(value): int(count) for value, count in counts.head(_MOST_VALUES).items()},
            "without": len(rows) - int(counts.sum()),
        }
    return slices
