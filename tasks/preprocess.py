"""Stage 2 of 11: give every usable image a class index and a split that never changes.

Reads build/manifest.parquet; writes build/dataset.parquet, data/splits.csv and reports/dataset.json. The first two it
also reads as they are from the run before, so DVC leaves them there (`persist` in dvc.yaml): photos keep their splits.
"""

from regraft.core.config import Params
from regraft.core.files import write_json
from regraft.photos.counts import check_left_out, check_splits, dataset_report
from regraft.photos.dataset import write_dataset
from regraft.photos.manifest import FIGURES, read_manifest
from regraft.photos.split_record import new_record, recall, write_record
from regraft.photos.splitting import build_dataset
from tasks.progress import Progress
from tasks.stage import stage


@stage
def preprocess(params: Params, progress: Progress) -> None:
    """Write the data set; pixels are prepared when the backbone needs them, since keeping them costs more."""
    settings, paths = params.preprocess, params.paths
    shares = {"val_share": settings.val_share, "test_share": settings.test_share}
    layout, manifest = read_manifest(paths.manifest, leave_out=FIGURES)
    earlier = recall(paths.splits, paths.dataset, **shares)
    dataset = build_dataset(manifest, paths.raw, **shares, earlier=earlier.splits, by_name=not earlier.is_complete)
    record = new_record(manifest, dataset, earlier.splits, **shares)
    report = dataset_report(layout, manifest, dataset, earlier, record)
    check_left_out(report, [paths.splits, paths.dataset])
    check_splits(dataset, manifest)
    # First: it also has what the old data set says and the new one does not, so a kill in between loses no split.
    write_record(paths.splits, record)
    write_dataset(paths.dataset, dataset)
    write_json(paths.reports / "dataset.json", report)


if __name__ == "__main__":
    preprocess.run()
