"""A former run once more: from its photos, params and code to models/model.onnx, and a comparison of the bytes.

The stages run as commands, with this environment's Python, in a worktree of the run's snapshot. Nothing comes from
DVC's run cache or from a store, so that every number is computed anew.
"""

import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from regraft.core.config import Params, Paths
from regraft.core.errors import RegraftError, some
from regraft.core.files import md5_of, reading, sha256_of
from regraft.core.provenance import installed_versions
from tasks.dvc_cache import missing_photos
from tasks.runs.dvc_remote import has_remote
from tasks.runs.git import Git, open_git
from tasks.runs.receipts import find_run, read_receipt
from tasks.runs.snapshots import reference_of
from tasks.runs.this_machine import instruction_set
from tasks.runs.trusted_code import check_code
from tasks.runs.worktree import bring, environment, worktree_of

_CHOOSE_BASE, _TRAIN_BASE = "choose_base", "train_base"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ANYWAY = "With --anyway it is tried all the same."

Tell = Callable[[str], None]


def reproduce(
    params: Params,
    wanted: str,
    *,
    anyway: bool,
    tell: Tell,
    trusted: str | None = None,
    confirm: Callable[[str], bool] | None = None,
) -> bool:
    """Make the model of a run anew, and return whether it has the same bytes.

    Args:
        params: all settings, as they are now.
        wanted: the run, as in `tasks.runs.receipts.find_run`.
        anyway: try it with other libraries, or another processor, than the run had.
        tell: called with a line for a person.
        trusted: a branch or commit whose code may run, as in `tasks.runs.trusted_code.check_code`.
        confirm: asks a person whether other code may run, as there.

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
        model, stages, snapshot = _model_of(receipt), stages_to_model(receipt), _snapshot_of(git, run, receipt)
        if not anyway:
            _check_machine(receipt, stages)
    tell(f"Run {run}, {receipt['started'][:16].replace('T', ' ')} UTC: {receipt['name']}")
    if (python := receipt["versions"].get("python")) != platform.python_version():
        tell(f"Python was {python}, and is {platform.python_version()}: no result should depend on it.")
    check_code(git, params, snapshot, trusted, confirm)
    with worktree_of(git, snapshot) as project:
        paths = bring_settings(root, project, tell)
        bring_photos(root, project, paths["raw"], receipt, tell)
        differing: list[str] = []
        trained = {step["name"] for step in receipt["stages"] if step["outcome"] == "Ran"}
        is_kept = False
        for stage in stages:
            if stage == _TRAIN_BASE and is_kept:
                continue
            others = _run_stage(project, stage, receipt, stages, tell)
            if stage == _CHOOSE_BASE and others and _TRAIN_BASE not in trained:
                is_kept, others = True, []
                bring_base(root, project, paths, receipt, tell)
            differing += others
        made = sha256_of(project / paths["onnx"])
    tell(f"then  {model}\nnow   {made}")
    if made == model:
        tell("The same bytes.")
        return True
    tell(f"Other bytes. The first that differ: {differing[0] if differing else 'the model itself'}.")
    return False


def stages_to_model(receipt: dict[str, Any]) -> list[str]:
    """Return the stages that the model comes from, each after those whose outputs it reads."""
    locked = receipt["locked"]
    makers = {path: stage for stage, facts in locked.items() for path in facts["writes"]}
    order: list[str] = []
    seen: set[str] = set()

    def add(stage: str) -> None:
        if not stage.isidentifier():  # a receipt from elsewhere may name anything, and this is started
            raise ValueError(f"no stage: {stage}")
        seen.add(stage)
        for path in locked[stage]["reads"]:
            if path in makers and makers[path] not in seen:
                add(makers[path])
        order.append(stage)

    add(makers[_paths_in(receipt["params"])["onnx"]])
    return order


def bring_settings(root: Path, project: Path, tell: Tell) -> dict[str, str]:
    """Take a shared store out of the settings, and bring own weights, which git does not hold, from this project.

    Returns:
        The paths of the settings.

    Raises:
        RegraftError: they are not there.
    """
    yaml = YAML()
    path = project / "params.yaml"
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
    return _paths_in(settings)


def _paths_in(settings: dict[str, Any]) -> dict[str, str]:
    """Return all paths of a run; the settings of one by a former version have them all."""
    return {name: path.as_posix() for name, path in Paths.constants().items()} | settings["paths"]


def bring_photos(root: Path, project: Path, raw: str, receipt: dict[str, Any], tell: Tell) -> None:
    """Let DVC put the photos of a run into its copy of the project, from its cache, or from a remote.

    Raises:
        RegraftError: some are in neither.
    """
    md5, total = receipt["data"]["md5"], receipt["data"].get("files", 1)
    missing, fetches, said = missing_photos(root, md5, total), has_remote(), ""
    if missing and fetches:
        tell(f"{len(missing)} of {total} photos are not in DVC's cache. Fetching ...")
    if fetches or not missing:
        said = bring(root, project, raw, md5, fetches=bool(missing))
        missing = missing_photos(root, md5, total) if said else []
    if missing:
        remote = f"or in its remote ({said})" if fetches else "and there is no remote"
        names = some(missing) if missing[0] else "their names are lost too"
        raise RegraftError(
            f"{len(missing)} of {total} photos are not in DVC's cache {remote}: {names}. Where they still are, "
            f"`dvc push` them; here `dvc remote add --default NAME ADDRESS`, and run this again, which does what "
            f"`dvc pull` does for the photos of today. `dvc gc --all-branches` keeps those of runs with --commit."
        )
    if said:
        raise RegraftError(f"DVC cannot bring the photos back: {said}")
    tell(f"photos: {total} files, as they were then")


def bring_base(root: Path, project: Path, paths: dict[str, str], receipt: dict[str, Any], tell: Tell) -> None:
    """Let DVC bring the base of a run that kept that of an earlier one, whose photos may not be there any more.

    Only to where the settings have it: at another path that a receipt names it could take the place of code.

    Raises:
        RegraftError: DVC has it neither in its cache nor in a remote.
    """
    fetches, written = has_remote(), {}
    for stage in (_CHOOSE_BASE, _TRAIN_BASE):
        written |= receipt["locked"][stage]["writes"]
    for name in ("base_photos", "left_out", "base", "reports"):
        for path in [each for each in written if paths[name] in (each, Path(each).parent.as_posix())]:
            if said := bring(root, project, path, written[path]["md5"], fetches=fetches):
                raise RegraftError(
                    f"the run started from the base of an earlier run, and DVC cannot bring {path} back: {said} Where "
                    f"it still is, `dvc push` it; or reproduce the run that trained it."
                )
    tell("base: that of an earlier run, as DVC has it; to reproduce that run makes it anew")


def _run_stage(project: Path, stage: str, receipt: dict[str, Any], stages: list[str], tell: Tell) -> list[str]:
    """Run a stage as a command, and return which of the files that lead to the model are not as they were then."""
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-m", f"tasks.{stage}"], cwd=project, env=environment(), check=False)
    if ended.returncode:
        raise RegraftError(f"{stage} did not end well (status {ended.returncode}), as it did in that run. See above.")
    read = {path for each in stages for path in receipt["locked"][each]["reads"]}
    written = receipt["locked"][stage]["writes"]
    now = {path: _md5_in(project, path) for path in written if path in read}
    others = [path for path, md5 in now.items() if md5 != written[path]["md5"]]
    how = f"other bytes than then: {', '.join(others)}" if others else "as then"
    tell(f"{stage:15} {time.monotonic() - begun:8.1f} s   {how}")
    return [f"{path}, which {stage} writes" for path in others]


def _md5_in(project: Path, path: str) -> str | None:
    file = (project / path).resolve()  # a receipt may name any path
    return md5_of(file) if file.is_relative_to(project.resolve()) and file.is_file() else None


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
        f"`git fetch ADDRESS 'refs/regraft/*:refs/regraft/*'`. Old ones are gone (nights.keep_reports), and those of "
        f"runs without --commit are where these runs were."
    )


def _check_machine(receipt: dict[str, Any], stages: list[str]) -> None:
    """Raise RegraftError where the model can hardly get the same bytes, before hours are spent on it."""
    then = {name: version for stage in stages for name, version in receipt["locked"][stage]["libraries"].items()}
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
