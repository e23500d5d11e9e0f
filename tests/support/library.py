"""How tests set the library up on a few small photos: what the stages otherwise take from params.yaml."""

from pathlib import Path
from typing import Any

import pandas as pd

from regraft.backbones.trunk import Trunk
from regraft.core.config import BackboneChoice, FineTune, Machine
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import open_feature_store
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.images import Threads
from regraft.photos.known import Learning
from regraft.photos.manifest import build_manifest
from regraft.photos.splitting import build_dataset
from regraft.photos.views import Views
from regraft.reports.sources import Sources

LIMITS = DecodeLimits(max_pixels=10**6, max_seconds=20)
NO_PHOTOS_ELSEWHERE = {"photo_schemes": (), "photo_private_addresses": False, "photo_cache": 0.0}
NO_SHARED_STORE = {"shared_store": None, "allow_recompute": True}
MACHINE = Machine(workers=2, batch_size=3, cluster=None, **NO_SHARED_STORE, **NO_PHOTOS_ELSEWHERE)
FINE_TUNE = FineTune(
    mode="always",
    budget="balanced",
    layers="top",
    epochs=2,
    learning_rate=1e-3,
    max_minutes=60.0,
    max_photos=50_000,
    renew_after=0.1,
)


# A backbone with its real weights, so that tolerances mean what they mean in use, on images small enough for tests.
# The cut is later than the default one, because TensorFlow takes seconds to trace each block above it.
SMALL_CHOICE = BackboneChoice(
    name="efficientnet_lite0",
    weights="imagenet",
    preprocessing="auto",
    image_size=64,
    cut="block13_add",
    engine="onnxruntime",
)


def ignore_progress(done: int, total: int) -> None:
    """A progress that nobody watches."""


def fine_tune_settings(**settings: object) -> FineTune:
    """Return `FINE_TUNE` with some settings changed."""
    return FINE_TUNE.model_copy(update=settings)


def scan_folder(
    folder: Path,
    *,
    max_pixels: int = 10**6,
    threads: Threads | None = None,
    cache: Path | None = None,
    learning: Learning | None = None,
) -> tuple[str, pd.DataFrame]:
    """Return the layout's name and the manifest of a folder."""
    limits = DecodeLimits(max_pixels, 20)
    return build_manifest(folder, limits=limits, threads=threads or Threads(2), cache=cache, learning=learning)


def dataset_of(folder: Path, *, share: float = 0.2) -> Dataset:
    """Return the data set of a folder; `share` is that of val and that of test where the folder gives no splits."""
    _, manifest = scan_folder(folder)
    return build_dataset(manifest, folder, val_share=share, test_share=share)


def dataset_in(project: Path) -> Dataset:
    """Return the data set that a project's stage `preprocess` wrote."""
    return read_dataset(project / "build" / "dataset.parquet", project / "data" / "raw")


def extractor_of(views: Views, trunk: Trunk, folder: Path) -> Extractor:
    """Return an extractor whose store lies in `folder`, opened anew as by another process."""
    return Extractor(views, trunk, open_feature_store(folder, trunk), MACHINE)


def sources_in(folder: Path) -> Sources:
    """Return the sources of pages in a folder, each under its usual name."""
    return Sources(
        reports=folder / "reports",
        raw=folder / "raw",
        elsewhere=None,
        dataset_file=folder / "dataset.parquet",
        onnx=folder / "model.onnx",
        production=folder / "production",
        photos=24,
        threads=Threads(1),
        limits=LIMITS,
    )


def scan_table(
    folder: Path, rows: list[tuple[str, ...]], elsewhere: Elsewhere, *, columns: str = "path,label", known: Any = None
) -> tuple[Learning, pd.DataFrame]:
    """Write labels.csv to folder / "raw" and return what was learnt and the manifest."""
    (folder / "raw").mkdir(exist_ok=True)
    lines = [columns, *(",".join(row) for row in rows)]
    (folder / "raw" / "labels.csv").write_text("\n".join(lines) + "\n")
    learning = Learning(known)
    limits, threads = DecodeLimits(10**6, 20), Threads(2)
    _, manifest = build_manifest(folder / "raw", limits=limits, threads=threads, learning=learning, elsewhere=elsewhere)
    return learning, manifest
