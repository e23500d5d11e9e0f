"""Snapshots: what a run was made from, as a commit that no branch has, under refs/regraft/runs/<run>.

It holds the files that git tracks as they are in the working tree, edits included, and what DVC and the stages wrote
for git: data/raw.dvc, dvc.lock, data/splits.csv, data/base_renewals.csv, the receipt. HEAD, branches, what is staged
and the working tree stay as they are. Such a commit is some kilobytes, and git keeps it as long as the reference is
there: none is ever removed.
"""

import shutil
from datetime import datetime
from pathlib import Path

from regraft.config import Params
from tasks.runs.git import Git, NoGit

_REFERENCES = "refs/regraft/runs/"
_NEEDED = ("params.yaml", "dvc.yaml", "tasks/stage.py")  # what a run cannot be repeated without


def files_of_run(params: Params) -> list[Path]:
    """Return what DVC and the stages write for git, whether it is there or not."""
    raw = params.paths.raw
    written = [params.paths.splits, params.paths.renewals]
    return [raw.with_name(f"{raw.name}.dvc"), raw.parent / ".gitignore", Path("dvc.lock"), *written]


def reference_of(run: str) -> str:
    """Return the name of the reference that keeps a run's snapshot."""
    return _REFERENCES + run


def take_snapshot(git: Git, params: Params, run: str, at: datetime) -> str:
    """Make the commit of a run, without its receipt, and return its name; `keep_snapshot` gives it a reference.

    Raises:
        NoGit: git cannot, or does not track what the run was made from.
    """
    head = git.revision()
    with git.own_index() as own:
        # The times of files in the index spare reading them all again.
        index = git.root / git("rev-parse", "--git-path", "index")
        if index.is_file():
            shutil.copyfile(index, own.variables["GIT_INDEX_FILE"])
        if own("ls-files", "--", "."):
            own("add", "--update", "--", ".")
        _add(own, files_of_run(params))
        tracked = set(own("ls-files", "-z").split("\0"))
        if missing := [name for name in _NEEDED if name not in tracked]:
            raise NoGit(f"git does not track {', '.join(missing)}. `git add` what this project is made of.")
        tree = own("write-tree")
    return git.commit(tree, f"What run {run} was made from\n", [head] if head else [], at)


def keep_snapshot(git: Git, run: str, snapshot: str, receipt: Path, at: datetime) -> None:
    """Keep a snapshot: its reference names a commit that adds the receipt, which names the snapshot."""
    with git.own_index() as own:
        own("read-tree", snapshot)
        _add(own, [receipt])
        tree = own("write-tree")
    commit = git.commit(tree, f"Receipt of run {run}\n", [snapshot], at)
    git("update-ref", "-m", "regraft: a run has ended", reference_of(run), commit)


def _add(own: Git, paths: list[Path]) -> None:
    if names := own.trackable(paths):
        own("--literal-pathspecs", "add", "--force", "--", *names)
