"""What a run starts from, brought to a clone that has nothing: records from git, results and data from DVC's remote."""

from collections.abc import Iterator
from pathlib import Path

from regraft.config import Params
from tasks.locked import read_locked
from tasks.runs.dvc_remote import pull_data
from tasks.runs.git import open_git
from tasks.runs.shared_branch import fetch_records

_FEATURES = "cache_features"  # the stage whose output is large


def pull(root: Path, params: Params) -> Iterator[str]:
    """Bring here what a run starts from, and yield a sentence about each part.

    With a shared store features.arrow is not fetched: what has to be written anew is read from there, and no photo runs
    through the backbone for it.

    Raises:
        RegraftError: something cannot be had. What is half there would place photos anew.
    """
    yield fetch_records(open_git(root), params)
    stages, paths = _targets(params)
    if not stages:
        yield "There is nothing to pull yet: neither dvc.lock nor the data's .dvc file is in git."
        return
    # One after the other: of stages and paths in one command DVC 3.67 pulls a part, and says that this is all.
    for targets in filter(None, (stages, paths)):
        pull_data(params, targets)
    yield "Pulled the data, the results of the last run and the run cache from DVC's remote."


def _targets(params: Params) -> tuple[list[str], list[str]]:
    """Return the stages and .dvc files of which all is fetched, and the single outputs beside them."""
    stages, paths = [], []
    for name, stage in read_locked().items():
        if name == _FEATURES and params.machine.shared_store:
            paths = [path for path in stage["writes"] if Path(path) != params.paths.features]
        elif stage["writes"]:
            stages.append(name)
    pointer = params.paths.raw.with_name(f"{params.paths.raw.name}.dvc")
    return [*stages, *([pointer.as_posix()] if pointer.is_file() else [])], paths
