"""`regraft retrain --commit`: what a run wrote for git becomes a commit, and what it made goes to DVC's remote.

So `dvc gc --all-branches` keeps the data and the models of nights. Of a person's work nothing is committed: neither
edits nor what is staged. HEAD and branches move by `git update-ref`, and no file is checked out.
"""

from pathlib import Path
from typing import Any

from regraft.core.config import Params
from regraft.core.errors import Damaged, safe_text
from tasks.runs.dvc_remote import has_remote, push_data
from tasks.runs.git import Git, NoGit, open_git
from tasks.runs.receipts import read_receipt, runs_with_receipt
from tasks.runs.run_record import RunRecord
from tasks.runs.shared_branch import push_branch
from tasks.runs.snapshots import files_of_run, let_leave, reference_of
from tasks.runs.this_machine import without_machine

_UNDER_WAY = {"MERGE_HEAD": "merge", "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert"}
_UNDER_WAY |= {"rebase-merge": "rebase", "rebase-apply": "rebase", "BISECT_LOG": "bisect"}


def commit_run(params: Params, record: RunRecord, branch: str | None) -> list[str]:
    """Commit what a run wrote for git, its receipt too, and push what it made if DVC has a remote.

    Receipts of earlier runs that are not in git yet come with it. With nights.push the branch is pushed too, after the
    data: so whoever fetches the branch finds the data that it names, unless DVC has no remote, which is said.

    Args:
        params: all settings.
        record: of the run, which has ended, and whose receipt is written.
        branch: takes the commit, and is made from HEAD if it is not there; None is what is checked out.

    Returns:
        Sentences for a person: what was done, and what could not be. Nothing is raised, since the run's work is done.
    """
    try:
        git = open_git(Path.cwd())
        let_leave(git, record.run)  # also where the commit has to wait for the next run
        told = _commit(git, params, record, branch)
    except NoGit as error:
        return [f"Nothing was committed: {error}", *push_data(params)]
    told += push_data(params)
    if params.nights.push is None:
        return told
    if told[-1].startswith("Warning"):
        return [
            *told,
            f"So {params.nights.push} was not told of the commit either: it would name data that nobody has.",
        ]
    if not has_remote():
        told.append("Warning: DVC has no remote, so what the branch names is on this machine alone.")
    return [*told, *push_branch(git, params, params.nights.push, branch)]


def _commit(git: Git, params: Params, record: RunRecord, branch: str | None) -> list[str]:
    current = git.ask("symbolic-ref", "--quiet", "HEAD")  # None where HEAD is detached
    wanted = f"refs/heads/{branch}" if branch else current
    is_current = wanted == current
    if problem := _obstacle(git, wanted, is_current):
        return [f"Nothing was committed: {problem} The next run with --commit catches up."]
    name = "HEAD" if is_current else str(wanted)
    tip = git.revision(name)
    parent = tip if is_current else _parent(git, tip)
    receipts = [params.paths.receipts / f"{run}.json" for run in runs_with_receipt(params.paths.receipts)]
    files = git.trackable([*files_of_run(params), *receipts])
    with git.own_index() as own:
        if parent:
            own("read-tree", parent)
        own("--literal-pathspecs", "add", "--force", "--", *files)
        tree = own("write-tree")
    if parent and tree == git("rev-parse", f"{parent}^{{tree}}"):
        return ["Nothing to commit: git has all that this run wrote for it."]
    commit = git.commit(tree, _message(git, params, record), [parent] if parent else [], record.ended)
    unstaged = _not_staged(git, files, tip) if is_current else []
    git("update-ref", "-m", "regraft retrain --commit", name, commit, tip or "0" * len(commit))
    told = [f"Committed {commit[:12]} on {(wanted or 'a detached HEAD').removeprefix('refs/heads/')}."]
    return told + _refresh(git, unstaged)


def _parent(git: Git, tip: str | None) -> str | None:
    """Return what the commit on another branch follows on: HEAD, once a person has merged the branch into it."""
    head = git.revision()
    is_merged = tip and head and git.ask("merge-base", "--is-ancestor", tip, head) is not None
    return head if tip is None or is_merged else tip


def _obstacle(git: Git, wanted: str | None, is_current: bool) -> str:
    """Return a sentence on why a branch cannot take a commit now; empty if it can."""
    if is_current:
        for name, what in _UNDER_WAY.items():
            if (git.root / git("rev-parse", "--git-path", name)).exists():
                return f"a {what} is under way. Finish it, or name a branch in nights.branch."
        return ""
    if git.ask("check-ref-format", str(wanted)) is None:
        return f"git allows no branch {str(wanted).removeprefix('refs/heads/')}. Change nights.branch."
    if f"branch {wanted}" in git("worktree", "list", "--porcelain").splitlines():
        return f"{str(wanted).removeprefix('refs/heads/')} is checked out in another worktree."
    return ""


def _not_staged(git: Git, files: list[str], tip: str | None) -> list[str]:
    """Return those of some files of which a person has staged no version of their own."""
    staged = _entries(git("ls-files", "--stage", "-z", "--", *files))
    committed = _entries(git("ls-tree", "-r", "-z", tip, "--", *files)) if tip else {}
    return [file for file in files if staged.get(file) == committed.get(file)]


def _entries(listing: str) -> dict[str, tuple[str, str]]:
    """Return mode and object by path, of what `git ls-files --stage` or `git ls-tree` lists."""
    entries = {}
    for line in filter(None, listing.split("\0")):
        facts, path = line.split("\t", 1)
        mode, *middle = facts.split(" ")
        # ls-files: mode, object, stage (0 without a conflict); ls-tree: mode, type, object.
        entries[path] = (mode, middle[1] if middle[0] == "blob" else middle[0] if middle[1] == "0" else "conflict")
    return entries


def _refresh(git: Git, files: list[str]) -> list[str]:
    """Let git's index have the committed versions of some files, or `git status` would show them as taken back."""
    try:
        if files:
            git("--literal-pathspecs", "reset", "--quiet", "HEAD", "--", *files)
    except NoGit as error:
        return [f"git's index is busy, so `git status` shows them as changed ({error}). `git reset` puts that right."]
    return []


def _message(git: Git, params: Params, record: RunRecord) -> str:
    """Return the message: the verdict with its numbers in the first line, then why, and of what."""
    lines = [f"Regraft: {record.name}", "", safe_text(without_machine(record.words)), "", f"Run: {record.run}"]
    try:
        receipt = read_receipt(params, record.run)
    except (FileNotFoundError, Damaged):  # a run that did nothing
        return "\n".join(lines) + "\n"
    lines[0] += _figures(receipt)
    if data := receipt.get("data"):
        lines.append(f"Data: {data['path']}, MD5 {str(data['md5']).removesuffix('.dir')}, {data.get('files', 1)} files")
    if receipt.get("model"):
        lines.append(f"Model: SHA-256 {receipt['model']}")
    if git.revision(reference_of(record.run)):
        lines.append(f"Snapshot: {reference_of(record.run)}")
    return "\n".join(lines) + "\n"


def _figures(receipt: dict[str, Any]) -> str:
    test = receipt.get("test")
    return f", accuracy of the new model {test['accuracy']:.4f} on {test['images']} test photos" if test else ""
