"""What a run starts from, brought to a clone that has nothing: records from git, results and data from DVC's remote."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regraft.core.config import Params
from regraft.core.errors import some
from tasks.dvc_lock import check_whole
from tasks.locked import read_locked, read_stages
from tasks.runs.dvc_remote import pull_data
from tasks.runs.git import open_git
from tasks.runs.shared_branch import fetch_records

_FEATURES = "cache_features"  # the stage whose output is large


def pull(root: Path, params: Params) -> Iterator[str]:
    """Bring here what a run starts from, and yield a sentence about each part.

    With a shared store features.arrow is not fetched: what has to be written anew is read from there, and no photo runs
    through the backbone for it.

    Raises:
        RegraftError: something cannot be had, or dvc.lock is damaged. What is half there would place photos anew.
    """
    yield fetch_records(open_git(root), params)
    wanted = _wanted(params)
    if wanted.gone:
        yield f"Left out what dvc.lock has of stages that dvc.yaml has no more: {some(wanted.gone)}."
    if not (wanted.stages or wanted.data):
        yield "There is nothing to pull yet: neither dvc.lock nor the data's .dvc file is in git."
        return
    # One after the other: of stages and paths in one command DVC 3.67 pulls a part, and says that this is all.
    for targets in filter(None, ([*wanted.stages, *wanted.data], wanted.paths)):
        pull_data(params, targets)
    yield wanted.told()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is pulled."""

    stages: list[str]  # all of what they wrote
    data: list[str]  # the .dvc file of the data, if there is one
    paths: list[str]  # single outputs, of a stage that has one which is not
    gone: list[str]  # stages that are in dvc.lock and not in dvc.yaml: DVC takes no such name

    def told(self) -> str:
        """Return a sentence on what was pulled."""
        parts = ["the data"] if self.data else []
        if self.stages:
            parts.append(f"the results of {', '.join(self.stages)}")
        parts += [", ".join(self.paths)] if self.paths else []
        return f"Pulled from DVC's remote: {'; '.join([*parts, 'the run cache'])}."


def _wanted(params: Params) -> _Wanted:
    check_whole(Path("dvc.lock"))
    locked = read_locked()
    known = read_stages() if locked else set()
    stages, paths, gone = [], [], []
    for name, stage in locked.items():
        if name.partition("@")[0] not in known:  # what stands behind it is an item of a `foreach` or `matrix`
            gone.append(name)
        elif name == _FEATURES and params.machine.shared_store:
            paths = [path for path in stage["writes"] if Path(path) != params.paths.features]
        elif stage["writes"]:
            stages.append(name)
    pointer = params.paths.raw.with_name(f"{params.paths.raw.name}.dvc")
    return _Wanted(stages, [pointer.as_posix()] if pointer.is_file() else [], paths, gone)
