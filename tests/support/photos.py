"""Real photos, and folders of them as data sets."""

from pathlib import Path

from regraft.core.params_file import load_params
from regraft.photos.dataset import Dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.manifest import build_manifest
from regraft.photos.splitting import build_dataset
from tests.support.pipeline import ROOT

REAL_PHOTOS = Path(__file__).parents[1] / "data" / "photos"


def read_folder(folder: Path, *, share: float = 0.1) -> Dataset:
    """Return the data set of a folder, within the limits of params.yaml but unchecked.

    `share` is that of val and that of test where the folder gives no splits.
    """
    settings = load_params(ROOT / "params.yaml").validate_data
    limits = DecodeLimits(settings.max_pixels, settings.max_seconds)
    _, manifest = build_manifest(folder, limits=limits, threads=Threads(0))
    return build_dataset(manifest, folder, val_share=share, test_share=share)
