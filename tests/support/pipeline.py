"""Temporary copies of this project, in which its stages run."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from tests.support.project import clean_environment

ROOT = Path(__file__).parents[2]
STAGES = [
    "validate_data",
    "preprocess",
    "cache_features",
    "check_features",
    "train_head",
    "choose_base",
    "train_base",
    "fine_tune",
    "export_onnx",
    "quantise",
    "evaluate",
]
# The command `regraft` with the code of the folder that it runs in; the installed one belongs to one checkout.
REGRAFT = [sys.executable, "-m", "flows.cli"]
# What a run without fine-tuning does; a class may be small here, because only a part of the photos may be used.
HEAD_ONLY = ["fine_tune.mode=off", "expectations.enough_images_per_class.min_value=1"]
_COPIED = [
    "dvc.yaml",
    "prefect.yaml",
    "pyproject.toml",
    "requirements.lock",
    ".gitignore",
    ".dvcignore",
    "expectations",
]
_COPIED += ["regraft", "tasks", "flows"]
_REFUSED = 2  # the flow's exit status when the gate refuses the new model; the run is complete


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folder with DVC set up, and data/raw empty."""

    root: Path
    environment: dict[str, str]

    @property
    def raw(self) -> Path:
        """The data folder."""
        return self.root / "data" / "raw"


@contextmanager
def temporary_project(settings: list[str]) -> Iterator[Project]:
    """Make a copy of this project with some settings changed, as in `write_params`."""
    with tempfile.TemporaryDirectory(prefix="regraft-bench-") as temporary:
        root = Path(temporary, "project")
        root.mkdir()
        for name in _COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, root)
        write_params(root / "params.yaml", settings)
        project = Project(root, clean_environment(Path(temporary, "home")))
        project.raw.mkdir(parents=True)
        for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
            run(command, root, project.environment, log=Path(temporary, "init.log"))
        yield project


def write_params(path: Path, settings: list[str], *, checkout: Path = ROOT) -> None:
    """Write params.yaml of a checkout of this project with some settings changed, each given as section.key=value.

    `expectations.NAME.ARGUMENT=value` changes an expectation in expectations/photos.json beside it.
    """
    yaml = YAML()
    params = yaml.load((checkout / "params.yaml").read_text())
    expectations = json.loads((checkout / "expectations" / "photos.json").read_text())
    by_name = {each["meta"]["name"]: each for each in expectations["expectations"]}
    for setting in settings:
        name, text = setting.split("=", 1)
        value = YAML(typ="safe").load(text)
        *sections, key = name.split(".")
        if sections[0] == "expectations":
            entry = by_name[sections[1]]
            (entry if key == "severity" else entry["kwargs"])[key] = value
            continue
        section = params
        for part in sections:
            section = section[part]
        section[key] = value
    with path.open("w") as file:
        yaml.dump(params, file)
    suite = path.parent / "expectations" / "photos.json"
    suite.parent.mkdir(exist_ok=True)
    suite.write_text(json.dumps(expectations))


def stages_folder(folder: Path, raw: Path, settings: list[str], *, checkout: Path = ROOT) -> Path:
    """Make a folder in which `run_stage` works: photos that lie elsewhere, settings of a checkout, and no DVC."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "raw").symlink_to(raw.resolve())
    (folder / ".dvc").mkdir()  # where stages keep their locks
    shutil.copy(checkout / "dvc.yaml", folder)
    write_params(folder / "params.yaml", settings, checkout=checkout)
    return folder


def run_stage(name: str, folder: Path, *, log: Path | None = None) -> None:
    """Run one stage in a folder as a process of its own, with the code of this project."""
    run([sys.executable, "-m", f"tasks.{name}"], folder, os.environ | {"PYTHONPATH": str(ROOT)}, log=log)


def run(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    *,
    log: Path | None = None,
    accepted: tuple[int, ...] = (0,),
) -> None:
    """Run a command to its end, with its output in `log` if given; a failure ends this process too."""
    with log.open("wb") if log else nullcontext() as output:
        ended = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if ended.returncode not in accepted:
        printed = f":\n{log.read_text(errors='replace')[-4000:]}" if log else ""
        sys.exit(f"{' '.join(command[1:])} ended with status {ended.returncode}{printed}")
