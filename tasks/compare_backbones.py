"""Beside the stages: try a backbone on the photos of build/dataset.parquet. No output of a stage changes."""

from regraft.comparison import Compared, compare_backbone
from regraft.config import Params
from regraft.errors import WrongFolder
from regraft.photos.dataset import read_dataset
from tasks.progress import Progress


def compare(name: str, params: Params, progress: Progress) -> Compared:
    """Return what a backbone comes to."""
    if not params.paths.dataset.exists():
        raise WrongFolder(
            f"there is no {params.paths.dataset}, which names the photos and their splits. Run `dvc repro preprocess` "
            f"first."
        )
    return compare_backbone(name, read_dataset(params.paths.dataset, params.paths.raw), params, progress("views"))
