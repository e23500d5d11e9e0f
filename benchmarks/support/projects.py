"""Temporary copies of this project, and commands in them with their seconds and memory."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from regraft.core.files import read_json
from regraft.core.params_file import load_params
from regraft.features.table import Features
from tasks.stage_inputs import open_features

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
class Ended:
    """What a process took."""

    status: int
    started: float  # as `time.time`
    seconds: float
    peak_memory_mb: float  # resident


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folder with DVC set up, and data/raw empty."""

    root: Path
    environment: dict[str, str]

    @property
    def raw(self) -> Path:
        """The data folder."""
        return self.root / "data" / "raw"

    def regraft(self, *arguments: str) -> "Ended":
        """Run a command of Regraft's; 2 is the exit status when the gate refuses the new model."""
        return run([*REGRAFT, *arguments], self.root, self.environment, log=self.log, accepted=(0, _REFUSED))

    @property
    def log(self) -> Path:
        """The file with the output of the last command."""
        return self.root.parent / "command.log"


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


def run_stages(folder: Path, raw: Path, settings: list[str], *, until: str) -> Path:
    """Run the stages up to one of them on photos, unless they have run in the folder, and return it."""
    if not (folder / f"{until}.log").is_file():
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted call
        stages_folder(folder, raw, settings)
        for stage in STAGES[: STAGES.index(until) + 1]:
            run_stage(stage, folder, log=folder / "running.log")
        (folder / "running.log").rename(folder / f"{until}.log")
    return folder


def stages_folder(folder: Path, raw: Path, settings: list[str], *, checkout: Path = ROOT) -> Path:
    """Make a folder in which `run_stage` works: photos that lie elsewhere, settings of a checkout, and no DVC."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "raw").symlink_to(raw.resolve())
    (folder / ".dvc").mkdir()  # where stages keep their locks
    shutil.copy(checkout / "dvc.yaml", folder)
    write_params(folder / "params.yaml", settings, checkout=checkout)
    return folder


@contextmanager
def features_in(folder: Path) -> Iterator[Features]:
    """Yield what `cache_features` wrote in a folder from `stages_folder`, to be read within the block."""
    params = load_params(folder / "params.yaml")
    paths = {name: folder / getattr(params.paths, name) for name in ("features", "store")}
    with open_features(params.model_copy(update={"paths": params.paths.model_copy(update=paths)})) as features:
        yield features


def run_stage(name: str, folder: Path, *, log: Path | None = None) -> Ended:
    """Run one stage in a folder as a process of its own, with the code of this project."""
    return run_module(f"tasks.{name}", folder=folder, log=log)


def run_module(module: str, *arguments: str, folder: Path, log: Path | None = None) -> Ended:
    """Run a module of this project in a folder."""
    return run([sys.executable, "-m", module, *arguments], folder, os.environ | {"PYTHONPATH": str(ROOT)}, log=log)


def run(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    *,
    log: Path | None = None,
    accepted: tuple[int, ...] = (0,),
) -> Ended:
    """Run a command to its end and return what it took; a failure ends this process too.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        environment: all its variables.
        log: takes what it prints; without one that goes to the terminal.
        accepted: exit statuses that are no failure.
    """
    with tempfile.TemporaryDirectory(prefix="regraft-run-") as temporary, ExitStack() as files:
        file = Path(temporary, "took.json")
        output = files.enter_context(log.open("wb")) if log else None
        launcher = [sys.executable, "-S", str(Path(__file__).with_name("measured.py")), str(file)]
        subprocess.run(
            [*launcher, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )
        ended = Ended(**read_json(file))
    if ended.status not in accepted:
        said = f":\n{log.read_text(errors='replace')[-4000:]}" if log else ""
        sys.exit(f"{' '.join(command[1:])} ended with status {ended.status}{said}")
    return ended


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment of every command: no settings of this machine, and `home` in place of the real one."""
    unwanted = ("PREFECT_", "DVC_", "GIT_", "PYTHON", "XDG_", "VIRTUAL_ENV", "MPL", "KERAS_", "TF_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    (home / "dvc").mkdir(parents=True)
    (home / "dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-cache"),
    }


def describe_machine() -> str:
    """Return processor, cores and memory in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().split("\n") if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"machine: {model}, {os.cpu_count()} cores, {memory:.0f} GB; Python {platform.python_version()}"
