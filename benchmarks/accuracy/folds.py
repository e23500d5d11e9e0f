"""Photos of a folder, parted so that each is predicted once by a model that never saw it or its near-duplicates."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.support.photos import readable_by_keras
from benchmarks.support.projects import HEAD_ONLY, run_stage, stages_folder
from regraft.photos.dataset import read_dataset
from regraft.photos.groups import groups_of_digests
from regraft.photos.manifest import read_manifest

_SEED = 20261124
_VAL_PARTS = 7  # of what is not test, one is val: with five folds 11 % of all


def read_photos(folder: Path, *, limit: int | None = None) -> pd.DataFrame:
    """Return the photos that a run would use and the recipe can read.

    Columns: digest, path (absolute), suffix, class_index, split, group.

    Args:
        folder: labelled photos in any of the three layouts.
        limit: of photos; the classes keep their shares.
    """
    with tempfile.TemporaryDirectory(prefix="regraft-photos-") as temporary:
        project = stages_folder(Path(temporary, "stages"), folder, HEAD_ONLY)
        for stage in ("validate_data", "preprocess"):
            run_stage(stage, project, log=Path(temporary, f"{stage}.log"))
        rows = read_dataset(project / "build" / "dataset.parquet", folder).rows
        _, manifest = read_manifest(project / "build" / "manifest.parquet")
    rows = readable_by_keras(rows).drop_duplicates("digest")
    rows = rows.assign(path=[str(folder.resolve() / path) for path in rows.path])
    rows["group"] = groups_of_digests(rows.digest.tolist(), manifest[manifest.verdict == "use"])
    rows = rows.sample(frac=1, random_state=_SEED)
    by_class = rows.groupby("class_index").digest
    place = by_class.cumcount() / by_class.transform("size")
    return rows.iloc[np.lexsort((rows.digest, place))[:limit]].sort_values("digest").reset_index(drop=True)


def pooled_folds(photos: pd.DataFrame, count: int, *, shots: int | None = None) -> list[pd.DataFrame]:
    """Return the photos once per fold, with the split that each has in it; over all folds each is test once.

    Args:
        photos: from `read_photos`.
        count: of folds.
        shots: training photos of each class, at most; None for all. Val shrinks with them: who has few photos to train
            on has few for it too.
    """
    groups, classes = photos.group.to_numpy(), photos.class_index.to_numpy()
    folds = []
    for number, (rest, _) in enumerate(_parted(classes, groups, count)):
        _, within = next(_parted(classes[rest], groups[rest], _VAL_PARTS))
        split = np.full(len(photos), "test", dtype=object)
        split[rest] = "train"
        split[rest[within]] = "val"
        fold = photos.assign(split=split).sample(frac=1, random_state=_SEED + number)
        if shots:
            place = fold.groupby(["class_index", "split"]).cumcount()
            most = fold.split.map({"train": shots, "val": max(1, round(shots / (_VAL_PARTS - 1))), "test": len(fold)})
            fold = fold[place < most]
        folds.append(fold.sort_values("digest").reset_index(drop=True))
    return folds


def _parted(classes: np.ndarray, groups: np.ndarray, count: int):
    return StratifiedGroupKFold(count, shuffle=True, random_state=_SEED).split(classes, classes, groups)


def write_photos(fold: pd.DataFrame, raw: Path) -> None:
    """Copy photos as {train,val,test}/<class>/<digest>; a folder without photos tells the recipe of its class."""
    for split in ("train", "val", "test"):
        for class_index in set(fold.class_index):
            (raw / split / f"{class_index:03}").mkdir(parents=True)
    for row in fold.itertuples():
        target = raw / str(row.split) / f"{row.class_index:03}" / f"{row.digest}{row.suffix}"
        shutil.copyfile(str(row.path), target)
