"""The branch that nights leave their records on, at a git remote: pushed when a run has ended, fetched before the next.

So a worker that keeps nothing goes on where the last one ended. `nights.push` names the remote, `nights.branch` the
branch. Code and settings are those that are checked out; from the branch come only the records that runs write.
"""

import re
from pathlib import Path

from regraft.core.addresses import without_addresses
from regraft.core.config import Params
from regraft.core.errors import RegraftError, safe_text, some
from regraft.photos.base_requests import read_requests, write_requests
from tasks.runs.git import Git, NoGit
from tasks.runs.receipts import MOST_BYTES, is_receipt, runs_to_forget
from tasks.runs.snapshots import COMMITTED, SNAPSHOTS, reference_of
from tasks.runs.trusted_code import foreign_paths

# What a person's settings of git would add to a push.
_PUSH = ("push", "--quiet", "--no-follow-tags", "--recurse-submodules=no")
_LONGEST = 500  # letters of what git says
_BEHIND = ("fetch first", "non-fast-forward", "stale info")  # as git says that the remote has commits of its own


def push_branch(git: Git, params: Params, remote: str, branch: str | None) -> list[str]:
    """Push a branch, and the snapshots of runs that were to be committed, to a git remote.

    Nothing there is ever overwritten. Of runs with a receipt on the branch, the snapshots that are too old go there.

    Returns:
        A sentence for a person; one that begins with `Warning` says that the remote does not have the commit.
    """
    name = f"refs/heads/{branch}" if branch else git.ask("symbolic-ref", "--quiet", "HEAD")
    if name is None:
        return [f"Warning: nothing was pushed to {remote}: no branch is checked out. Name one in nights.branch."]
    shown = name.removeprefix("refs/heads/")
    try:
        git(*_PUSH, remote, f"{name}:{name}", f"{COMMITTED}*:{SNAPSHOTS}*")
    except NoGit as error:
        return [_not_pushed(remote, shown, str(error))]
    try:
        _drop_old(git, params, remote, name)
    except NoGit as error:
        return [f"Old snapshots of runs stay at {remote}: {_shown(str(error))}", f"Pushed {shown} to {remote}."]
    return [f"Pushed {shown} to {remote}."]


def _drop_old(git: Git, params: Params, remote: str, name: str) -> None:
    there = {line.rpartition("/")[2] for line in git("ls-remote", remote, f"{SNAPSHOTS}*").splitlines()}
    receipts = git("ls-tree", "-z", "--name-only", name, "--", f"{params.paths.receipts}/").split("\0")
    if old := runs_to_forget(params, there & {Path(receipt).stem for receipt in receipts}):
        git(*_PUSH, remote, *(f":{reference_of(run)}" for run in old))


def fetch_records(git: Git, params: Params) -> str:
    """Bring here what the runs of other machines wrote for git, if nights.push and nights.branch name where it is.

    The branch here becomes the one there. dvc.lock and the splits become those of the branch, unless what is checked
    out has the branch's last commit already; requests for a new base are those of both; receipts are added.

    Returns:
        A sentence for a person.

    Raises:
        RegraftError: git cannot, both sides have commits of their own, or files were changed here and not committed.
    """
    remote, branch = params.nights.push, params.nights.branch
    if remote is None or branch is None:
        return "The records are those that are checked out: nights.push and nights.branch name no others."
    try:
        return _fetch(git, params, remote, branch)
    except NoGit as error:
        raise RegraftError(f"{branch} of {remote} cannot be fetched: {_shown(str(error))}") from None


def _fetch(git: Git, params: Params, remote: str, branch: str) -> str:
    name, there = f"refs/heads/{branch}", f"refs/remotes/{remote}/{branch}"
    if not git("ls-remote", "--heads", remote, name):
        return f"{remote} has no branch {branch} yet: the first run with --commit makes it."
    # Whether one commit comes from another can be told only where the history is whole.
    whole = ["--unshallow"] if git("rev-parse", "--is-shallow-repository") == "true" else []
    git("fetch", "--quiet", "--no-tags", *whole, remote, f"+{name}:{there}")
    tip, here = git.revision(there), git.revision(name)
    assert tip
    _move(git, params, name, tip, here)
    if _is_in(git, tip, git.revision()):
        return f"What is checked out has all of {branch}."
    left_out = _take(git, params, tip, here)
    words = f" Left out, as no receipts of runs: {some(left_out)}." if left_out else ""
    return f"The records are those of {branch} at {remote} ({tip[:12]}).{words}"


def _move(git: Git, params: Params, name: str, tip: str, here: str | None) -> None:
    """Let the branch here be the one there, where that loses no commit."""
    branch = name.removeprefix("refs/heads/")
    if here == tip or (here and _is_in(git, tip, here)):
        return
    if here and not _is_in(git, here, tip):
        raise RegraftError(
            f"{branch} has commits here that the remote lacks, and the other way round: two machines push to it. Name "
            f"a branch for each in nights.branch. `git branch --force {branch} {tip[:12]}` takes what is there."
        )
    if git.ask("symbolic-ref", "--quiet", "HEAD") == name:
        # Else the next run would execute it, and `regraft reproduce` would take it for code that a person trusts.
        if here and (foreign := foreign_paths(git, params, here, tip)):
            raise RegraftError(
                f"{branch} is checked out, and its new commits at the remote change more than records: "
                f"{some(foreign, 20)}. Look at `git diff {here[:12]} {tip[:12]}`. If that may run here, take it by "
                f"`git merge --ff-only {tip[:12]}`. Or name a branch for records alone in nights.branch."
            )
        git("merge", "--ff-only", "--quiet", tip)
    else:
        git("update-ref", "-m", "regraft pull", name, tip, here or "0" * len(tip))


def _take(git: Git, params: Params, tip: str, here: str | None) -> list[str]:
    """Take the records of a commit, and return what lies beside them in the folder of receipts."""
    paths = [Path("dvc.lock"), params.paths.splits, params.paths.renewals]
    for path in paths:
        if path.is_file() and not _is_known(git, path, ["HEAD", tip, *([here] if here else [])]):
            raise RegraftError(
                f"{path} was changed here and is not in git, and the branch has another one. Commit it, or take it "
                f"back by `git restore {path}`."
            )
    asked = read_requests(params.paths.renewals)
    found, left_out = _records_in(git, tip, paths, params.paths.receipts)
    if found:
        git("--literal-pathspecs", "restore", "--overlay", "--source", tip, "--worktree", "--", *found)
    theirs = read_requests(params.paths.renewals)
    if asked.keys() - theirs.keys():
        write_requests(params.paths.renewals, theirs | asked)
    return left_out


def _records_in(git: Git, tip: str, paths: list[Path], receipts: Path) -> tuple[list[str], list[str]]:
    """Return the records that a commit has, and what else is in its folder of receipts.

    Whoever may push could put anything there: links, other repositories, files of any size and name.

    Raises:
        RegraftError: one of the paths is no file there.
    """
    found: list[str] = []
    left_out: list[str] = []
    for entry in git("ls-tree", "-r", "-z", "--long", tip, "--", *map(str, paths), f"{receipts}/").split("\0"):
        facts, _, name = entry.partition("\t")
        mode, *_, size = facts.split() or ["", ""]
        path = Path(name)
        if path in paths and not mode.startswith("100"):
            raise RegraftError(
                f"{name} on the branch is a link, or another repository, and no file. Find out who may push to it, and "
                f"put the file back there."
            )
        is_one = path.parent == receipts and is_receipt(path.name) and mode == "100644" and int(size) <= MOST_BYTES
        if name:
            (found if path in paths or is_one else left_out).append(name)
    return found, left_out


def _is_known(git: Git, path: Path, commits: list[str]) -> bool:
    """Whether a file is as one of some commits has it."""
    blobs = [git.ask("rev-parse", "--verify", "--quiet", f"{commit}:./{path.as_posix()}") for commit in commits]
    return git("hash-object", "--", str(path)) in blobs


def _is_in(git: Git, commit: str, other: str | None) -> bool:
    """Whether a commit is another one, or one that it comes from."""
    return other is not None and git.ask("merge-base", "--is-ancestor", commit, other) is not None


def _not_pushed(remote: str, branch: str, why: str) -> str:
    if any(word in why for word in _BEHIND):
        return (
            f"Warning: {branch} was not pushed to {remote}, which has commits of another machine on it. The commit is "
            f"here and nothing is lost. Name a branch for each machine in nights.branch."
        )
    return f"Warning: {branch} was not pushed to {remote}: {_shown(why)} The next run with --commit does it."


def _shown(why: str) -> str:
    """Return what git says without addresses, which may hold a password, and without paths of repositories."""
    return safe_text(re.sub(r"'[^'/:]*[/:][^']*'", "'***'", without_addresses(why)))[:_LONGEST]
