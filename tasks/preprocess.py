"""Stage 2 of 8: give every usable image a class index and a split that never changes.

Reads build/manifest.parquet; writes build/dataset.parquet and reports/dataset.json.
"""

from regraft.config import Params
from regraft.files import write_json
from regraft.photos.dataset import write_dataset
from regraft.photos.manifest import read_manifest
from regraft.photos.splitting import build_dataset, dataset_report
from tasks.progress import Progress
from tasks.stage import stage


@stage
def preprocess(params: Params, progress: Progress) -> None:
    """Write the data set; pixels are prepared when the backbone needs them, since keeping them costs more."""
    settings, paths = params.preprocess, params.paths
    layout, manifest = read_manifest(paths.manifest)
    dataset = build_dataset(manifest, paths.raw, val_share=settings.val_share, test_share=settings.test_share)
    write_dataset(paths.dataset, dataset)
    write_json(paths.reports / "dataset.json", dataset_report(layout, manifest, dataset))


if __name__ == "__main__":
    preprocess.run()
