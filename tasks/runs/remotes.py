"""What runs leave at remotes, and start from: the branch of nights at a git remote, and data at DVC's remote.

So a worker that keeps nothing goes on where the last one ended. `nights.push` names the git remote, `nights.branch` the
branch. Code and settings are those that are checked out; from the branch come only the records that runs write. The
branch is pushed after the data, so it never names data that nobody has.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from regraft.core.addresses import without_addresses
from regraft.core.config import Params
from regraft.core.errors import RegraftError, safe_text, some
from regraft.core.files import fingerprint, sha256_of, write_text
from regraft.photos.base_requests import read_requests, write_requests
from tasks.dvc_files import check_whole, dvc_config, read_locked, read_stages
from tasks.runs.current_run import RunRecord
from tasks.runs.git import Git, NoGit, open_git
from tasks.runs.receipts import MOST_BYTES, is_receipt, runs_to_forget, runs_with_receipt
from tasks.runs.snapshots import COMMITTED, SNAPSHOTS, commit_run, files_of_run, foreign_paths, reference_of

_PUSHED = Path(".dvc", "tmp", "regraft", "pushed")  # says what DVC's remote has all of
# What a person's settings of git would add to a push.
_PUSH = ("push", "--quiet", "--no-follow-tags", "--recurse-submodules=no")
_BEHIND = ("fetch first", "non-fast-forward", "stale info")  # as git says that the remote has commits of its own
_LONGEST = 500  # letters of what git or DVC says


def commit_and_push(params: Params, record: RunRecord, branch: str | None) -> list[str]:
    """Commit what a run wrote for git, its receipt too, push what it made to DVC's remote, and then the branch.

    Args:
        params: all settings.
        record: of the run, which has ended, and whose receipt is written.
        branch: takes the commit, and is made from HEAD if it is not there; None is what is checked out.

    Returns:
        Sentences for a person: what was done, and what could not be. Nothing is raised, since the run's work is done.
    """
    receipts = [params.paths.receipts / f"{run}.json" for run in runs_with_receipt(params.paths.receipts)]
    try:
        git = open_git(Path.cwd())
        told = [commit_run(git, params, record, receipts, branch), *push_data(params)]
    except NoGit as error:
        return [f"Nothing was committed: {error}", *push_data(params)]
    remote = params.nights.push
    if remote is None:
        return told
    if told[-1].startswith("Warning"):
        return [*told, f"So {remote} was not told of the commit either: it would name data that nobody has."]
    if not dvc_config()["remote"]:
        told.append("Warning: DVC has no remote, so what the branch names is on this machine alone.")
    return [*told, *_push_branch(git, params, remote, branch)]


def push_data(params: Params) -> list[str]:
    """Push data, outputs and DVC's run cache, if there is a remote; a sentence that begins with `Warning` says no."""
    try:
        config = dvc_config()
    except RegraftError as error:
        return [f"Warning: nothing was pushed: {error}"]
    if not config["remote"]:
        return []
    remotes = [sorted((name, str(facts.get("url"))) for name, facts in config["remote"].items()), config["core"]]
    state = fingerprint([str(remotes), [sha256_of(path) for path in files_of_run(params) if path.is_file()]])
    if _PUSHED.is_file() and _PUSHED.read_text(encoding="utf-8") == state:  # a second is too long for nothing
        return []
    if why := _dvc(params, "push", "--run-cache"):
        return [
            f"Warning: nothing was pushed to DVC's remote ({why}). The next run with --commit, or `dvc push`, does it."
        ]
    with suppress(RegraftError):  # no room: the next run pushes again
        write_text(_PUSHED, state)
    return ["Pushed data, results and the run cache to DVC's remote."]


def pull(root: Path, params: Params) -> Iterator[str]:
    """Bring here what a run starts from, and yield a sentence about each part.

    With a shared store features.arrow is not fetched: what has to be written anew is read from there, and no photo runs
    through the backbone for it.

    Raises:
        RegraftError: something cannot be had, or dvc.lock is damaged. What is half there would place photos anew.
    """
    yield fetch_records(open_git(root), params)
    check_whole(Path("dvc.lock"))
    locked = read_locked()
    known = read_stages() if locked else []
    # What stands behind @ is an item of a `foreach` or `matrix`.
    if gone := [name for name in locked if name.partition("@")[0] not in known]:
        yield f"Left out what dvc.lock has of stages that dvc.yaml has no more: {some(gone)}."
    large = "cache_features" if params.machine.shared_store else ""
    stages = [name for name in locked if name not in (*gone, large) and locked[name]["writes"]]
    paths = [path for path in locked.get(large, {}).get("writes", {}) if Path(path) != params.paths.features]
    pointer = params.paths.raw.with_name(f"{params.paths.raw.name}.dvc")
    data = [pointer.as_posix()] if pointer.is_file() else []
    if not (stages or data):
        yield "There is nothing to pull yet: neither dvc.lock nor the data's .dvc file is in git."
        return
    # One after the other: of stages and paths in one command DVC 3.67 pulls a part, and says that this is all.
    for targets in filter(None, ([*stages, *data], paths)):
        pull_data(params, targets)
    parts = ["the data"] if data else []
    parts += [f"the results of {', '.join([*stages, *paths])}"] if stages else []
    yield f"Pulled from DVC's remote: {'; '.join([*parts, 'the run cache'])}."


def pull_data(params: Params, targets: list[str]) -> None:
    """Fetch some outputs and DVC's run cache; RegraftError if not all is there: nothing may go on from half of it."""
    if not dvc_config()["remote"]:
        raise RegraftError(
            "DVC has no remote to pull from. `dvc remote add --default NAME s3://bucket/folder` sets one."
        )
    if why := _dvc(params, "pull", "--run-cache", *targets):
        raise RegraftError(
            f"not all could be pulled from DVC's remote ({why}). `dvc push` where these files are, or `dvc pull` here "
            "says more. Without them a run would place photos anew, so none should start."
        )


def fetch_records(git: Git, params: Params) -> str:
    """Bring here what the runs of other machines wrote for git, if nights.push and nights.branch name where it is.

    The branch here becomes the one there. dvc.lock and the splits become those of the branch, unless what is checked
    out has the branch's last commit already; requests for a new base are those of both; receipts are added.

    Raises:
        RegraftError: git cannot, both sides have commits of their own, or files were changed here and not committed.
    """
    remote, branch = params.nights.push, params.nights.branch
    if remote is None or branch is None:
        return "The records are those that are checked out: nights.push and nights.branch name no others."
    name, there = f"refs/heads/{branch}", f"refs/remotes/{remote}/{branch}"
    try:
        if not git("ls-remote", "--heads", remote, name):
            return f"{remote} has no branch {branch} yet: the first run with --commit makes it."
        # Whether one commit comes from another can be told only where the history is whole.
        whole = ["--unshallow"] if git("rev-parse", "--is-shallow-repository") == "true" else []
        git("fetch", "--quiet", "--no-tags", *whole, remote, f"+{name}:{there}")
        tip, here = str(git.revision(there)), git.revision(name)
        _move(git, params, name, tip, here)
        if git.contains(git.revision(), tip):
            return f"What is checked out has all of {branch}."
        left_out = _take(git, params, tip, here)
    except NoGit as error:
        raise RegraftError(f"{branch} of {remote} cannot be fetched: {_shown(str(error))}") from None
    words = f" Left out, as no receipts of runs: {some(left_out)}." if left_out else ""
    return f"The records are those of {branch} at {remote} ({tip[:12]}).{words}"


def _move(git: Git, params: Params, name: str, tip: str, here: str | None) -> None:
    """Let the branch here be the one there, where that loses no commit."""
    branch = name.removeprefix("refs/heads/")
    if git.contains(here, tip):
        return
    if here and not git.contains(tip, here):
        raise RegraftError(
            f"{branch} has commits here that the remote lacks, and the other way round: two machines push to it. Name "
            f"a branch for each in nights.branch. `git branch --force {branch} {tip[:12]}` takes what is there."
        )
    if git.ask("symbolic-ref", "--quiet", "HEAD") != name:
        git("update-ref", "-m", "regraft pull", name, tip, here or "0" * len(tip))
        return
    # Else the next run would execute it, and `regraft reproduce` would take it for code that a person trusts.
    if here and (foreign := foreign_paths(git, params, here, tip)):
        raise RegraftError(
            f"{branch} is checked out, and its new commits at the remote change more than records: "
            f"{some(foreign, 20)}. Look at `git diff {here[:12]} {tip[:12]}`. If that may run here, take it by "
            f"`git merge --ff-only {tip[:12]}`. Or name a branch for records alone in nights.branch."
        )
    git("merge", "--ff-only", "--quiet", tip)


def _take(git: Git, params: Params, tip: str, here: str | None) -> list[str]:
    """Take the records of a commit, and return what lies beside them in the folder of receipts."""
    paths = [Path("dvc.lock"), params.paths.splits, params.paths.renewals]
    for path in filter(Path.is_file, paths):
        commits = ["HEAD", tip, *([here] if here else [])]
        blobs = [git.ask("rev-parse", "--verify", "--quiet", f"{commit}:./{path.as_posix()}") for commit in commits]
        if git("hash-object", "--", str(path)) not in blobs:
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
    """
    found: list[str] = []
    left_out: list[str] = []
    for entry in git("ls-tree", "-r", "-z", "--long", tip, "--", *map(str, paths), f"{receipts}/").split("\0"):
        facts, _, name = entry.partition("\t")
        mode, *_, size = facts.split() or ["", ""]
        path = Path(name)
        if path in paths and not mode.startswith("100"):
            raise RegraftError(
                f"{name} on the branch is a link, or another repository, and no file. Put it back there."
            )
        is_one = path.parent == receipts and is_receipt(path.name) and mode == "100644" and int(size) <= MOST_BYTES
        if name:
            (found if path in paths or is_one else left_out).append(name)
    return found, left_out


def _push_branch(git: Git, params: Params, remote: str, branch: str | None) -> list[str]:
    """Push a branch, and the snapshots of runs that were to be committed; nothing there is ever overwritten."""
    name = f"refs/heads/{branch}" if branch else git.ask("symbolic-ref", "--quiet", "HEAD")
    if name is None:
        return [f"Warning: nothing was pushed to {remote}: no branch is checked out. Name one in nights.branch."]
    shown = name.removeprefix("refs/heads/")
    try:
        git(*_PUSH, remote, f"{name}:{name}", f"{COMMITTED}*:{SNAPSHOTS}*")
    except NoGit as error:
        if any(word in str(error) for word in _BEHIND):
            why = "which has commits of another machine on it. Name a branch for each machine in nights.branch."
            return [f"Warning: {shown} was not pushed to {remote}, {why}"]
        return [
            f"Warning: {shown} was not pushed to {remote}: {_shown(str(error))} The next run with --commit does it."
        ]
    try:  # of runs with a receipt on the branch, the snapshots that are too old go there
        there = {line.rpartition("/")[2] for line in git("ls-remote", remote, f"{SNAPSHOTS}*").splitlines()}
        receipts = git("ls-tree", "-z", "--name-only", name, "--", f"{params.paths.receipts}/").split("\0")
        if old := runs_to_forget(params, there & {Path(receipt).stem for receipt in receipts}):
            git(*_PUSH, remote, *(f":{reference_of(run)}" for run in old))
    except NoGit as error:
        return [f"Old snapshots of runs stay at {remote}: {_shown(str(error))}", f"Pushed {shown} to {remote}."]
    return [f"Pushed {shown} to {remote}."]


def _dvc(params: Params, *arguments: str) -> str:
    """Run a command of DVC's, and return why it failed, without addresses; nothing if it did not."""
    command = [sys.executable, "-m", "dvc", *arguments]
    limit = 3600 * params.nights.stage_hours
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit)
    except (subprocess.TimeoutExpired, OSError) as error:
        return _shown(str(error))
    if not ended.returncode:
        return ""
    lines = ended.stderr.splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
    return safe_text(without_addresses(" ".join(errors)))[:_LONGEST] or f"exit status {ended.returncode}"


def _shown(why: str) -> str:
    """Return what git says without addresses, which may hold a password, and without paths of repositories."""
    return safe_text(re.sub(r"'[^'/:]*[/:][^']*'", "'***'", without_addresses(why)))[:_LONGEST]
