"""Stage 2 of 8: give every usable image a class index and a split that never changes, and show what the network sees.

Reads build/manifest.parquet and data/raw; writes build/dataset.parquet, reports/dataset.json and reports/prepared.png.
"""

from regraft.backbones.catalogue import choose_backbone
from regraft.config import Params
from regraft.files import write_json
from regraft.photos.dataset import write_dataset
from regraft.photos.manifest import read_manifest
from regraft.photos.preparation import Preparation
from regraft.photos.splitting import build_dataset, dataset_report
from regraft.reports.plots import contact_sheet
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
    preparation = Preparation(choose_backbone(params.backbone).image_size, settings.crop_fraction)
    contact_sheet(paths.reports / "prepared.png", dataset, preparation, on_progress=progress("thumbnails"))


if __name__ == "__main__":
    preprocess.run()
