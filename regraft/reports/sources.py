"""Where the pages find what they show."""

from dataclasses import dataclass
from pathlib import Path

from regraft.core.config import Params
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.elsewhere import Elsewhere, elsewhere_of
from regraft.photos.images import Threads

PHOTOS = 24  # thumbnails of mistakes, of labels that are likely wrong, and of scored photos to look at


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a run that pages read; no page writes to any of them."""

    reports: Path  # the JSON and CSV files of the stages, and the gate's verdict
    raw: Path  # the data folder
    elsewhere: Elsewhere | None  # that fetches photos at addresses
    dataset_file: Path
    onnx: Path  # the shipped file
    production: Path  # the folder of the models in production
    photos: int  # thumbnails of mistakes, and of labels that are likely wrong
    threads: Threads  # that wait for thumbnails
    limits: DecodeLimits  # of drawing one

    def read_dataset(self) -> Dataset:
        """Return the data set."""
        return read_dataset(self.dataset_file, self.raw, self.elsewhere)


def sources_of(params: Params) -> Sources:
    """Return the sources that params.yaml names."""
    paths = params.paths
    return Sources(
        paths.reports,
        paths.raw,
        elsewhere_of(params),
        paths.dataset,
        paths.onnx,
        paths.production,
        photos=PHOTOS,
        threads=Threads(params.machine.workers),
        limits=DecodeLimits(params.validate_data.max_pixels, params.validate_data.max_seconds),
    )
