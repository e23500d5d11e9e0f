"""Snapshots: what a run was made from, as a commit that no branch has, under refs/regraft/runs/<run>.

It is HEAD with what the run read where that is another: settings, expectations, the sources that the record of code
names, and what DVC and the stages wrote for git (data/raw.dvc, dvc.lock, data/splits.csv, data/base_renewals.csv, the
receipt). Nothing else that is edited, staged or new enters. HEAD, branches, the index and the working tree stay as they
are. A second reference marks the snapshots that may leave this machine: those of runs that were to be committed.
"""

from datetime import datetime
from pathlib import Path

from regraft.core.config import Params
from tasks.code_record import recorded_sources
from tasks.runs.git import Git, NoGit

SNAPSHOTS, COMMITTED = "refs/regraft/runs/", "refs/regraft/committed/"
_NEEDED = ("params.yaml", "dvc.yaml", "tasks/stage.py")  # what a run cannot be repeated without


def files_of_run(params: Params) -> list[Path]:
    """Return what DVC and the stages write for git, whether it is there or not."""
    raw = params.paths.raw
    written = [params.paths.splits, params.paths.renewals]
    return [raw.with_name(f"{raw.name}.dvc"), raw.parent / ".gitignore", Path("dvc.lock"), *written]


def reference_of(run: str) -> str:
    """Return the name of the reference that keeps a run's snapshot."""
    return SNAPSHOTS + run


def take_snapshot(git: Git, params: Params, run: str, at: datetime) -> str:
    """Make the commit of a run, without its receipt, and return its name; `keep_snapshot` gives it a reference.

    Raises:
        NoGit: git cannot, or has no commit of what the run was made from.
    """
    head = git.revision()
    if head is None:
        raise NoGit("nothing is committed yet. `git commit` what this project is made of.")
    with git.own_index() as own:
        own("read-tree", head)
        tracked = set(own("ls-files", "-z").split("\0"))
        if missing := [name for name in _NEEDED if name not in tracked]:
            raise NoGit(f"git does not track {', '.join(missing)}. `git add` and commit what this project is made of.")
        _record(own, [*files_of_run(params), *_read_by_run(own, params, tracked)], tracked)
        tree = own("write-tree")
    return git.commit(tree, f"What run {run} was made from\n", [head], at)


def keep_snapshot(git: Git, run: str, snapshot: str, receipt: Path, at: datetime) -> None:
    """Keep a snapshot: its reference names a commit that adds the receipt, which names the snapshot."""
    with git.own_index() as own:
        own("read-tree", snapshot)
        _record(own, [receipt], set())
        tree = own("write-tree")
    commit = git.commit(tree, f"Receipt of run {run}\n", [snapshot], at)
    git("update-ref", "-m", "regraft: a run has ended", reference_of(run), commit)


def let_leave(git: Git, run: str) -> None:
    """Mark the snapshot of a run, if it has one, as one that `nights.push` pushes."""
    if commit := git.revision(reference_of(run)):
        git("update-ref", COMMITTED + run, commit)


def runs_with_snapshot(git: Git) -> list[str]:
    """Return the names of the runs that have a snapshot here."""
    return git("for-each-ref", "--format=%(refname:lstrip=3)", SNAPSHOTS).split()


def drop_snapshots(git: Git, runs: list[str]) -> None:
    """Remove the references of some runs; git removes what only they kept when it collects garbage."""
    for run in runs:
        for reference in (reference_of(run), COMMITTED + run):
            git("update-ref", "-d", reference)


def _read_by_run(own: Git, params: Params, tracked: set[str]) -> list[Path]:
    """Return settings, expectations and code that the run read: what git tracks, or is not told to ignore."""
    folder = params.paths.expectations
    read = [Path("params.yaml"), Path("dvc.yaml"), *folder.glob("*.json"), *recorded_sources(own.root)]
    read += [Path(name) for name in tracked if Path(name).parent == folder and name.endswith(".json")]
    new = set(
        own("ls-files", "-z", "--others", "--exclude-standard", "--", "regraft", "tasks", str(folder)).split("\0")
    )
    # Weights of the person's own are large: an untracked file of them is not for git.
    weights = {str(name) for name in (params.backbone.name, params.backbone.weights)} & tracked
    return [path for path in read if path.as_posix() in tracked | new] + [Path(name) for name in weights]


def _record(own: Git, paths: list[Path], tracked: set[str]) -> None:
    """Let an index have some files as they are; a tracked one that is gone goes from it as well."""
    gone = [path.as_posix() for path in paths if path.as_posix() in tracked and not (own.root / path).exists()]
    own("update-index", "--add", "-z", "--stdin", stdin="".join(f"{name}\0" for name in own.trackable(paths)))
    own("update-index", "--force-remove", "-z", "--stdin", stdin="".join(f"{name}\0" for name in gone))
