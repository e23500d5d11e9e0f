"""A former run once more: from its photos, params and code to models/model.onnx, and a comparison of the bytes.

The stages run as commands, with this environment's Python, in a worktree of the run's snapshot. Nothing comes from
DVC's run cache or from a store, so that every number is computed anew.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from regraft.addresses import without_addresses
from regraft.config import Params
from regraft.errors import RegraftError, some
from regraft.files import md5_of, reading, sha256_of
from regraft.provenance import installed_versions
from tasks.dvc_cache import missing_photos
from tasks.runs.git import Git, open_git
from tasks.runs.receipts import find_run, read_receipt
from tasks.runs.snapshots import reference_of
from tasks.runs.this_machine import instruction_set
from tasks.runs.worktree import share_dvc, worktree_of

_CHOOSE_BASE, _TRAIN_BASE = "choose_base", "train_base"
_ANYWAY = "With --anyway it is tried all the same."

Tell = Callable[[str], None]


def reproduce(params: Params, wanted: str, *, anyway: bool, tell: Tell) -> bool:
    """Make the model of a run anew, and return whether it has the same bytes.

    Args:
        params: all settings, as they are now; only `paths.receipts` is used.
        wanted: the run, as in `tasks.runs.receipts.find_run`.
        anyway: try it with other libraries, or another processor, than the run had.
        tell: called with a line for a person.

    Raises:
        RegraftError: something is missing; the message says what. Nothing has been computed then.
    """
    root, run = Path.cwd(), find_run(params, wanted)
    try:
        receipt = read_receipt(params, run)
    except FileNotFoundError:
        raise RegraftError(f"the receipt of run {run} was removed just now. Restore it, and run again.") from None
    git = open_git(root)
    with reading(params.paths.receipts / f"{run}.json", "a receipt"):
        model, stages, snapshot = _model_of(receipt), stages_to_model(receipt), _snapshot_of(git, receipt)
        if not anyway:
            _check_machine(receipt, stages)
    tell(f"Run {run}, {receipt['started'][:16].replace('T', ' ')} UTC: {receipt['name']}")
    if (python := receipt["versions"].get("python")) != platform.python_version():
        tell(f"Python was {python}, and is {platform.python_version()}: no result should depend on it.")
    with worktree_of(git, snapshot) as project:
        share_dvc(root, project)
        bring_settings(root, project, tell)
        bring_photos(root, project, receipt, tell)
        differing: list[str] = []
        trained = {step["name"] for step in receipt["stages"] if step["outcome"] == "Ran"}
        is_kept = False
        for stage in stages:
            if stage == _TRAIN_BASE and is_kept:
                continue
            others = _run_stage(project, stage, receipt, stages, tell)
            if stage == _CHOOSE_BASE and others and _TRAIN_BASE not in trained:
                is_kept, others = True, []
                bring_base(project, tell)
            differing += others
        made = sha256_of(project / receipt["params"]["paths"]["onnx"])
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

    def add(stage: str) -> None:
        for path in locked[stage]["reads"]:
            if path in makers and makers[path] not in order:
                add(makers[path])
        order.append(stage)

    add(makers[receipt["params"]["paths"]["onnx"]])
    return order


def bring_settings(root: Path, project: Path, tell: Tell) -> None:
    """Take a shared store out of the settings, and bring own weights, which git does not hold, from this project.

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


def bring_photos(root: Path, project: Path, receipt: dict[str, Any], tell: Tell) -> None:
    """Let DVC put the photos of a run into its copy of the project, from its cache, or from a remote.

    Raises:
        RegraftError: some are in neither.
    """
    data = receipt["data"]
    pointer = f"{data['path']}.dvc"
    if not (project / pointer).is_file():
        raise RegraftError(f"the snapshot has no {pointer}: it lay behind a link, or DVC had not recorded the photos.")
    total = data.get("files", 1)
    missing = missing_photos(root, data["md5"], total)
    said = ""
    if missing and _has_remote(project):
        tell(f"{len(missing)} of {total} photos are not in DVC's cache. Fetching ...")
        said = _dvc(project, "fetch", pointer)
        missing = missing_photos(root, data["md5"], total)
    if missing:
        remote = f"or in its remote ({said or 'it has not all'})" if _has_remote(project) else "and there is no remote"
        names = some(missing) if missing[0] else "their names are lost too"
        raise RegraftError(
            f"{len(missing)} of {total} photos are not in DVC's cache {remote}: {names}. Where they still are, "
            f"`dvc push` them; here `dvc remote add --default NAME ADDRESS`, and run this again, which does what "
            f"`dvc pull` does for the photos of today. `dvc gc --all-branches` keeps those of runs with --commit."
        )
    if said := _dvc(project, "checkout", pointer):
        raise RegraftError(f"DVC cannot bring the photos back: {said}")
    tell(f"photos: {total} files, as they were then")


def bring_base(project: Path, tell: Tell) -> None:
    """Let DVC bring the base of a run that kept that of an earlier one, whose photos may not be there any more.

    Raises:
        RegraftError: DVC has it neither in its cache nor in a remote.
    """
    wanted = [_CHOOSE_BASE, _TRAIN_BASE]
    said = _dvc(project, "checkout", "--force", *wanted)
    if said and _has_remote(project) and not (said := _dvc(project, "fetch", *wanted)):
        said = _dvc(project, "checkout", "--force", *wanted)
    if said:
        raise RegraftError(
            f"the run started from the base of an earlier run, and DVC cannot bring that back: {said} Where it still "
            f"is, `dvc push` it; or reproduce the run that trained it."
        )
    tell("base: that of an earlier run, as DVC has it; to reproduce that run makes it anew")


def _has_remote(project: Path) -> bool:
    from dvc.config import Config

    return bool(Config(str(project / ".dvc"))["remote"])


def _dvc(project: Path, *arguments: str) -> str:
    """Run DVC in the copy of the project, and return what it complains of; empty if it succeeded."""
    command = [sys.executable, "-m", "dvc", *arguments]
    ended = subprocess.run(command, cwd=project, env=_environment(), capture_output=True, text=True, check=False)
    errors = [line.removeprefix("ERROR: ") for line in ended.stderr.splitlines() if line.startswith("ERROR: ")]
    return without_addresses(" ".join(errors) or f"status {ended.returncode}") if ended.returncode else ""


def _run_stage(project: Path, stage: str, receipt: dict[str, Any], stages: list[str], tell: Tell) -> list[str]:
    """Run a stage as a command, and return which of the files that lead to the model are not as they were then."""
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-m", f"tasks.{stage}"], cwd=project, env=_environment(), check=False)
    if ended.returncode:
        raise RegraftError(f"{stage} did not end well (status {ended.returncode}), as it did in that run. See above.")
    read = {path for each in stages for path in receipt["locked"][each]["reads"]}
    written = receipt["locked"][stage]["writes"]
    others = [path for path, file in written.items() if path in read and md5_of(project / path) != file["md5"]]
    how = f"other bytes than then: {', '.join(others)}" if others else "as then"
    tell(f"{stage:15} {time.monotonic() - begun:8.1f} s   {how}")
    return [f"{path}, which {stage} writes" for path in others]


def _environment() -> dict[str, str]:
    """The variables of commands in the copy, where Python takes the code of the current folder."""
    return {name: value for name, value in os.environ.items() if name not in ("DVC_STAGE", "PYTHONSAFEPATH")}


def _model_of(receipt: dict[str, Any]) -> str:
    if model := receipt.get("model"):
        return model
    raise RegraftError(
        f"run {receipt['run']} made no model: it ended as {receipt['name']} ({receipt['words']}). There is nothing to "
        f"compare with."
    )


def _snapshot_of(git: Git, receipt: dict[str, Any]) -> str:
    run, facts = receipt["run"], receipt.get("git", {})
    if problem := facts.get("problem"):
        raise RegraftError(f"run {run} has no snapshot of its code and params: {problem}")
    if snapshot := git.revision(reference_of(run)) or git.revision(str(facts.get("snapshot"))):
        return snapshot
    raise RegraftError(
        f"{reference_of(run)} is not in this repository. Fetch it from the one that the run was in: "
        f"`git fetch ADDRESS 'refs/regraft/*:refs/regraft/*'`."
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
