"""A former run once more: from its photos, params and code to models/model.onnx, and a comparison of the bytes.

`dvc repro --force` runs the stages in a worktree of the run's snapshot: nothing comes from DVC's run cache or from a
store, so every number is computed anew. Receipts, snapshots and the branch of nights come from whoever may write to the
git remote, so only code runs that a trusted commit has.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from regraft.core.addresses import without_addresses
from regraft.core.config import Params
from regraft.core.errors import Busy, RegraftError, safe_text, some
from regraft.core.files import reading, sha256_of
from regraft.core.provenance import installed_versions
from tasks.dvc_files import MD5, cache_of, check_whole, dvc_config, missing_photos, read_locked, read_stages
from tasks.runs.git import Git, open_git
from tasks.runs.receipts import KEPT_RUNS, find_run, instruction_set, read_receipt
from tasks.runs.snapshots import foreign_paths, reference_of

FOLDER = Path(".dvc", "tmp", "regraft", "reproduce")
_BASE = ("choose_base", "train_base")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ANYWAY = "With --anyway it is tried all the same."


def reproduce(
    params: Params, wanted: str, *, anyway: bool, tell: Callable[[str], None], trusted: str | None = None
) -> bool:
    """Make the model of a run anew, and return whether it has the same bytes.

    Args:
        params: all settings, as they are now.
        wanted: the run, as in `tasks.runs.receipts.find_run`.
        anyway: try it with other libraries, or another processor, than the run had.
        tell: called with a line for a person.
        trusted: a branch or commit whose code may run; None is what is checked out.

    Raises:
        RegraftError: something is missing, or the code is not trusted; the message says what. Nothing has run then.
    """
    root, run = Path.cwd(), find_run(params, wanted)
    try:
        receipt = read_receipt(params, run)
    except FileNotFoundError:
        raise RegraftError(f"the receipt of run {run} was removed just now. Restore it, and run again.") from None
    git = open_git(root)
    with reading(params.paths.receipts / f"{run}.json", "a receipt"):
        model, snapshot = _model_of(receipt), _snapshot_of(git, run, receipt)
        if not anyway:
            _check_machine(receipt)
        _check_code(git, params, snapshot, trusted)
        tell(f"Run {run}, {receipt['started'][:16].replace('T', ' ')} UTC: {receipt['name']}")
        outcomes = {step["name"]: step["outcome"] for step in receipt["stages"]}
    with _worktree(git, snapshot) as project:
        _prepare(root, project, tell)
        _bring_photos(root, project, receipt, tell)
        names = read_stages(project)
        stages = names[: names.index("export_onnx") + 1]
        if "train_base" in stages and outcomes.get("train_base") != "Ran":
            stages = [name for name in stages if name not in _BASE]
            _bring(project, *_BASE)
            tell("base: that of an earlier run, as DVC has it; to reproduce that run makes it anew")
        then = read_locked(project)
        if _dvc(project, "repro", "--force", "--no-commit", "--single-item", *stages).returncode:
            raise RegraftError("a stage did not end well, as it did in that run. See above.")
        made, now = sha256_of(project / params.paths.onnx), read_locked(project)
    tell(f"then  {model}\nnow   {made}")
    if made == model:
        tell("The same bytes.")
        return True
    differing = [f"{path}, which {stage} writes" for stage in stages for path in _others(stage, then, now)]
    tell(f"Other bytes. The first that differ: {differing[0] if differing else 'the model itself'}.")
    return False


def _others(stage: str, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the outputs of a stage that a later stage reads and that are not what they were."""
    read = {path for each in now.values() for path in each["reads"]}
    before, after = (each.get(stage, {}).get("writes", {}) for each in (then, now))
    return [path for path in after if path in read and after[path]["md5"] != before.get(path, {}).get("md5")]


@contextmanager
def _worktree(git: Git, revision: str) -> Iterator[Path]:
    """Yield the project's folder as it was in a commit; it is removed at the end, or by the next one after a kill."""
    from filelock import FileLock, Timeout

    folder = (git.root / FOLDER).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)

    def remove() -> None:
        git.ask("worktree", "remove", "--force", "--force", str(folder))  # also one that somebody locked, or half-made
        shutil.rmtree(folder, ignore_errors=True)
        git.ask("worktree", "prune")

    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            remove()
            try:
                git("worktree", "add", "--quiet", "--detach", "--force", str(folder), revision)
                yield folder / git.prefix
            finally:
                remove()
    except Timeout:
        raise Busy(
            "another run is being reproduced in this project. Wait for it to end, then start this again."
        ) from None


def _prepare(root: Path, project: Path, tell: Callable[[str], None]) -> None:
    """Let the copy use this project's cache and remotes, no shared store, and own weights that git does not hold."""
    from dvc.config import Config

    own = dvc_config(root)
    (project / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    with Config(str(project / ".dvc")).edit("local") as config:
        config["cache"] = {**own["cache"], "dir": str(cache_of(root))}
        config["remote"] = dict(own["remote"])
        config["core"] = {name: own["core"][name] for name in ("remote",) if own["core"].get(name)}
        config["core"] |= {"no_scm": True, "analytics": False}
    (project / ".dvc" / "config.local").chmod(0o600)  # it may hold the keys of a remote
    yaml, path = YAML(), project / "params.yaml"
    settings = yaml.load(path.read_text(encoding="utf-8"))
    if settings.get("machine", {}).get("shared_store"):
        settings["machine"]["shared_store"] = None
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(settings, file)
    for name in (settings["backbone"]["name"], settings["backbone"]["weights"]):
        if not isinstance(name, str) or not Path(name).suffix or (project / name).exists():
            continue
        if not (root / name).is_file():
            raise RegraftError(f"the backbone's file {name} is neither in the snapshot nor here. Put it there first.")
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).symlink_to((root / name).resolve())
        tell(f"{name} is not in git: the file that is here now is used.")


def _bring_photos(root: Path, project: Path, receipt: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Let DVC put the photos of a run into the copy, from its cache, or from a remote; RegraftError names lost ones."""
    data = receipt["data"]
    md5, pointer = str(data["md5"]), project / f"{data['path']}.dvc"
    check_whole(pointer, "outs")  # it may come from a pushed branch, and so may dvc.lock
    check_whole(project / "dvc.lock", "stages")
    missing = missing_photos(root, md5)
    if missing and dvc_config(root)["remote"]:
        tell(f"{'Some' if missing == [''] else len(missing)} photos are not in DVC's cache. Fetching ...")
        _bring(project, f"{data['path']}.dvc", command="fetch")
        missing = missing_photos(root, md5)
    if missing or not MD5.fullmatch(md5):
        raise RegraftError(
            f"photos of the run are neither in DVC's cache nor in a remote: {some(missing)}. `dvc push` them where "
            f"they still are; `dvc remote add --default NAME ADDRESS` here. `dvc gc --all-branches` keeps those of "
            f"runs with --commit."
        )
    _bring(project, f"{data['path']}.dvc")
    tell(f"photos: {data.get('files', 1)} files, as they were then")


def _bring(project: Path, *targets: str, command: str = "checkout") -> None:
    """Let DVC fetch some targets, or put them in their places."""
    ended = _dvc(project, command, *targets, capture_output=True, text=True)
    if ended.returncode:
        errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR: ")] or [ended.stderr]
        raise RegraftError(
            f"DVC cannot bring {', '.join(targets)} back: {without_addresses(safe_text(' '.join(errors)))[:500]} Where "
            f"it still is, `dvc push` it."
        )


def _dvc(project: Path, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run DVC in the copy, where `python` is this Python and takes the code of the current folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DVC_STAGE", "PYTHONSAFEPATH")}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, env=kept, check=False, **options)


def _model_of(receipt: dict[str, Any]) -> str:
    if model := receipt.get("model"):
        return model
    raise RegraftError(
        f"run {receipt['run']} made no model: it ended as {receipt['name']} ({receipt['words']}). There is nothing to "
        f"compare with."
    )


def _snapshot_of(git: Git, run: str, receipt: dict[str, Any]) -> str:
    facts = receipt.get("git", {})
    if problem := facts.get("problem"):
        raise RegraftError(f"run {run} has no snapshot of its code and params: {problem}")
    named = str(facts.get("snapshot"))
    if snapshot := git.revision(reference_of(run)) or (_COMMIT.fullmatch(named) and git.revision(named)):
        return snapshot
    raise RegraftError(
        f"{reference_of(run)} is not in this repository. Fetch it from the one that the run was in: "
        f"`git fetch ADDRESS 'refs/regraft/*:refs/regraft/*'`. The last {KEPT_RUNS} are kept, and those of runs "
        f"without --commit are where these runs were."
    )


def _check_machine(receipt: dict[str, Any]) -> None:
    """Raise RegraftError where the model can hardly get the same bytes, before hours are spent on it."""
    then = {name: version for each in receipt["locked"].values() for name, version in each["libraries"].items()}
    now = installed_versions()
    others = [f"{name} {version} (here {now.get(name)})" for name, version in then.items() if now.get(name) != version]
    if others:
        raise RegraftError(f"the run had other libraries: {some(others, 20)}. Install those. {_ANYWAY}")
    processor, here = receipt["machine"]["instruction_set"], instruction_set()
    if processor != here:
        raise RegraftError(
            f"the run had another processor, and equal bytes are promised on equal ones only: {processor}. Here: "
            f"{here}. {_ANYWAY}"
        )


def _check_code(git: Git, params: Params, snapshot: str, trusted: str | None) -> None:
    """Raise RegraftError unless the snapshot differs in data alone from the last commit that a trusted one has too."""
    # A tag comes with a fetch and may have the name of a branch, which git would take it for.
    places = (f"refs/heads/{trusted}", f"refs/remotes/{trusted}", trusted) if trusted else ("HEAD",)
    tip = next(filter(None, map(git.revision, places)), None)
    if tip is None:
        raise RegraftError(f"git knows no branch or commit {trusted or 'that is checked out'}. Name another one.")
    base = git.ask("merge-base", tip, snapshot) or tip
    if foreign := foreign_paths(git, params, base, snapshot):
        whose = f"of the commits that {trusted} has" if trusted else "of the commits that are checked out"
        raise RegraftError(
            f"the run had code that is none {whose}: {some(foreign, 20)}. Look at it, `git diff {base[:12]} "
            f"{snapshot[:12]}`. If it may run on this machine, as you, name a branch that has it, `--trust BRANCH`, or "
            f"the commit itself, `--trust {snapshot[:12]}`."
        )
