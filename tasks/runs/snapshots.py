"""What git keeps of a run: a snapshot of what it was made from and, by `regraft retrain --commit`, a commit.

A snapshot is a commit that no branch has, under refs/regraft/runs/<run>: HEAD with what the run read where that is
another - settings, expectations, the sources that the record of code names - and what DVC and the stages wrote for git.
A second reference marks those that may leave this machine. Nothing else that a person has edited, staged or added
enters a snapshot or a commit, and no file is checked out.
"""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.core.config import Params
from regraft.core.errors import safe_text
from tasks.code_record import recorded_sources
from tasks.runs.current_run import RunRecord
from tasks.runs.git import Git, NoGit

SNAPSHOTS, COMMITTED = "refs/regraft/runs/", "refs/regraft/committed/"
_NEEDED = ("params.yaml", "dvc.yaml", "tasks/stage.py")  # what a run cannot be repeated without
# Sections of params.yaml in which no value is a path, a file of weights or a host that a stage would go to.
_HARMLESS = {"seed", "validate_data", "preprocess", "cache_features", "check_features", "train_head", "fine_tune"}
_HARMLESS |= {"export_onnx", "quantise", "evaluate", "promote", "nights", "report"}
_PLAIN = ("100644", "100755", "000000")  # modes of git: files, and what is not there any more; no links, no modules
_UNDER_WAY = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "BISECT_LOG")


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


def runs_with_snapshot(git: Git) -> list[str]:
    """Return the names of the runs that have a snapshot here."""
    return git("for-each-ref", "--format=%(refname:lstrip=3)", SNAPSHOTS).split()


def drop_snapshots(git: Git, runs: list[str]) -> None:
    """Remove the references of some runs; git removes what only they kept when it collects garbage."""
    for run in runs:
        for reference in (reference_of(run), COMMITTED + run):
            git("update-ref", "-d", reference)


def commit_run(git: Git, params: Params, record: RunRecord, receipts: Collection[Path], branch: str | None) -> str:
    """Commit what a run wrote for git, with all receipts that git lacks; return a sentence on what was done.

    Args:
        git: of the project.
        params: all settings.
        record: of the run; the last of the receipts is its own.
        receipts: their paths.
        branch: takes the commit, and is made from HEAD if it is not there; None is what is checked out.
    """
    if snapshot := git.revision(reference_of(record.run)):
        git("update-ref", COMMITTED + record.run, snapshot)  # it may leave, also where the commit has to wait
    current = git.ask("symbolic-ref", "--quiet", "HEAD")  # None where HEAD is detached
    wanted = f"refs/heads/{branch}" if branch else current
    is_current = wanted == current
    if problem := _obstacle(git, str(wanted), is_current):
        return f"Nothing was committed: {problem} The next run with --commit catches up."
    name = "HEAD" if is_current else str(wanted)
    tip, head = git.revision(name), git.revision()
    # Another branch follows on HEAD once a person has merged it.
    parent = head if not is_current and (tip is None or git.contains(head, tip)) else tip
    files = git.trackable([*files_of_run(params), *receipts])
    with git.own_index() as own:
        if parent:
            own("read-tree", parent)
        own("--literal-pathspecs", "add", "--force", "--", *files)
        tree = own("write-tree")
    if parent and tree == git("rev-parse", f"{parent}^{{tree}}"):
        return "Nothing to commit: git has all that this run wrote for it."
    words = [f"Regraft: {record.name}", "", safe_text(record.words), "", f"Run: {record.run}"]
    commit = git.commit(tree, "\n".join(words) + "\n", [parent] if parent else [], record.ended)
    git("update-ref", "-m", "regraft retrain --commit", name, commit, tip or "0" * len(commit))
    told = f"Committed {commit[:12]} on {(wanted or 'a detached HEAD').removeprefix('refs/heads/')}."
    if is_current and git.ask("--literal-pathspecs", "reset", "--quiet", "HEAD", "--", *files) is None:
        return f"{told} git's index is busy, so `git status` shows its files as changed: `git reset` puts that right."
    return told


def foreign_paths(git: Git, params: Params, base: str, commit: str) -> list[str]:
    """Return the paths, from the top of the repository, in which a commit differs from another in more than data.

    Data are regular files: records, receipts, expectations, and sections of params.yaml that hold numbers and names.
    """
    parts = git("diff-tree", "-r", "-z", "--no-renames", base, commit).split("\0")
    changes = zip(parts[1::2], [facts.split()[1] for facts in parts[:-1:2]], strict=True)
    records = {path.as_posix() for path in files_of_run(params)}

    def is_data(path: str, mode: str) -> bool:
        if mode not in _PLAIN or not path.startswith(git.prefix):
            return False
        if path == f"{git.prefix}params.yaml":
            before = _reaching_settings(git, base, path)
            return before is not None and before == _reaching_settings(git, commit, path)
        name = Path(path.removeprefix(git.prefix))
        is_listed = name.parent in (params.paths.receipts, params.paths.expectations) and name.suffix == ".json"
        return is_listed or name.as_posix() in records

    return [path for path, mode in changes if not is_data(path, mode)]


def _reaching_settings(git: Git, commit: str, path: str) -> dict[Any, Any] | None:
    """Return the sections of params.yaml in a commit that are not harmless; None if it cannot be read."""
    try:
        settings = YAML(typ="safe").load(git("cat-file", "blob", f"{commit}:{path}"))
        return {name: section for name, section in settings.items() if name not in _HARMLESS}
    except (NoGit, YAMLError, ValueError, RecursionError, AttributeError, TypeError):
        return None


def _obstacle(git: Git, wanted: str, is_current: bool) -> str:
    """Return a sentence on why a branch cannot take a commit now; empty if it can."""
    if is_current:
        is_busy = any((git.root / git("rev-parse", "--git-path", name)).exists() for name in _UNDER_WAY)
        return "a merge, a rebase or a bisection is under way. Finish it, or set nights.branch." if is_busy else ""
    if git.ask("check-ref-format", wanted) is None:
        return f"git allows no branch {wanted.removeprefix('refs/heads/')}. Change nights.branch."
    if f"branch {wanted}" in git("worktree", "list", "--porcelain").splitlines():
        return f"{wanted.removeprefix('refs/heads/')} is checked out in another worktree."
    return ""


def _read_by_run(own: Git, params: Params, tracked: set[str]) -> list[Path]:
    """Return settings, expectations and code that the run read: what git tracks, or is not told to ignore."""
    folder = params.paths.expectations
    read = [Path("params.yaml"), Path("dvc.yaml"), *folder.glob("*.json"), *recorded_sources(own.root)]
    read += [Path(name) for name in tracked if Path(name).parent == folder and name.endswith(".json")]
    new = own("ls-files", "-z", "--others", "--exclude-standard", "--", "regraft", "tasks", str(folder)).split("\0")
    # Weights of the person's own are large: an untracked file of them is not for git.
    weights = {str(name) for name in (params.backbone.name, params.backbone.weights)} & tracked
    return [path for path in read if path.as_posix() in tracked.union(new)] + [Path(name) for name in weights]


def _record(own: Git, paths: list[Path], tracked: set[str]) -> None:
    """Let an index have some files as they are; a tracked one that is gone goes from it as well."""
    gone = [path.as_posix() for path in paths if path.as_posix() in tracked and not (own.root / path).exists()]
    own("update-index", "--add", "-z", "--stdin", stdin="".join(f"{name}\0" for name in own.trackable(paths)))
    own("update-index", "--force-remove", "-z", "--stdin", stdin="".join(f"{name}\0" for name in gone))
