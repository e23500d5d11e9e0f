"""Toy stage: a class index and a split for every photo."""

from pathlib import Path

import pandas as pd

from regraft.core.config import Params
from regraft.core.files import read_json, write_json
from regraft.photos.dataset import COLUMNS, Dataset, write_dataset
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import obey


@stage
def preprocess(params: Params, progress: Progress) -> None:
    """Write the data set: every so many photos, in the order of their digests, are of the test split."""
    obey("preprocess", "begin")
    photos = {digest: (path, name) for path, digest, name in read_json(Path("build/files.json"))}
    names = sorted({name for _, name in photos.values()})
    every = round(1 / params.preprocess.test_share)
    rows = [
        (digest, path, name, names.index(name), "train" if number % every else "test")
        for number, (digest, (path, name)) in enumerate(sorted(photos.items()))
    ]
    table = pd.DataFrame(rows, columns=["digest", "path", "class_name", "class_index", "split"])
    table = table.assign(format="PNG")[list(COLUMNS)].astype(COLUMNS)
    write_dataset(params.paths.dataset, Dataset(table, names, params.paths.raw))
    write_json(params.paths.reports / "dataset.json", {"images": len(rows)})
    obey("preprocess", "end")


if __name__ == "__main__":
    preprocess.run()
