"""A toy project of all stages: the real source, store, DVC, gate and production around stages that take no time.

Its commands are forked from one process that has imported everything, so that one starts in milliseconds. Each can be
told to kill itself, and all that it started, before its n-th change of a disk.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from tests.support.project import SOURCE, Project, clean_environment

STAGES = ["validate_data", "preprocess", "cache_features", "check_features"]
STAGES += ["train_head", "choose_base", "train_base", "fine_tune", "export_onnx", "quantise", "evaluate"]
CLASSES = {"apple": (200, 60, 60), "pear": (70, 170, 60), "plum": (60, 60, 190)}
CRASHED = 70  # exit status of a command that ended with a traceback
# What the gate cannot decide on a handful of photos goes into production.
ANY = {"promote.when_undecided": "promote"}
_TOYS = Path(__file__).with_name("toy_stages")
_CODE = ["regraft", "tasks", "flows"]
_COPIED = [*_CODE, "params.yaml", "pyproject.toml", "requirements.lock", ".gitignore", ".dvcignore"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int  # negative: the signal that killed it
    output: str

    @property
    def is_killed(self) -> bool:
        """Whether it was killed as it was told to be."""
        return self.status == -9


class EightStages(Project):
    """The project's folder, and the process that its commands are forked from."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "project", clean_environment(folder / "home"))
        self._template, self._finished, self._log = (folder / name for name in ("template", "finished", "output.txt"))
        self._make_template()
        self.reset()
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.support.eight_stages_commands"],
            cwd=self.root,
            env=self.environment | {"PYTHONPATH": str(SOURCE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, what: str, *, kill_at: int = 0, **arguments: object) -> Ended:
        """Run a command to its end, or to the step at which it kills itself.

        Args:
            what: flow | repro | promote | rollback | force | gc | ask | unread (`eight_stages_commands`).
            kill_at: that step, from 1.
            arguments: of the command.
        """
        assert self._parent.stdin
        assert self._parent.stdout
        order = {"what": what, "arguments": arguments, "kill_at": kill_at, "log": str(self._log)}
        self._parent.stdin.write(json.dumps(order) + "\n")
        self._parent.stdin.flush()
        answer = self._parent.stdout.readline()
        assert answer, "the process that forks the commands has ended"
        return Ended(json.loads(answer), self._log.read_text(errors="replace"))

    def end(self) -> None:
        """End the process that forks."""
        assert self._parent.stdin
        self._parent.stdin.close()
        self._parent.wait(self.patience)
        assert self._parent.stdout
        self._parent.stdout.close()

    def reset(self, *, finished: bool = False) -> None:
        """Make the project what it was before anything ran, or at `keep`; its code, which is loaded, stays."""
        self.root.mkdir(exist_ok=True)
        for path in self.root.iterdir():
            if path.name not in _CODE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _copy_missing(self._finished if finished else self._template, self.root)

    def keep(self) -> None:
        """Keep the project as it is now for `reset`."""
        self._finished.mkdir()
        _copy_missing(self.root, self._finished)

    def photo(self, name: str, class_name: str, colour: str) -> None:
        """Write a photo of the colour of a class, whichever class it is put in."""
        self.remove_photo(name)
        path = self.root / "data" / "raw" / class_name / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_of(name, CLASSES[colour]))

    def remove_photo(self, name: str) -> None:
        """Remove it from whatever class it is in."""
        for path in (self.root / "data" / "raw").glob(f"*/{name}.png"):
            path.unlink()

    def set_param(self, name: str, value: Any) -> None:
        """Change one value in params.yaml, which may be it already."""
        there = YAML(typ="safe").load(self.read("params.yaml"))
        for part in name.split("."):
            there = there[part]
        if there != value:
            super().set_param(name, value)

    @property
    def runs(self) -> list[str]:
        """The stages that ran since `forget_runs`."""
        path = self.root / "runs.log"
        return path.read_text().split() if path.exists() else []

    def forget_runs(self) -> None:
        """Start counting anew."""
        (self.root / "runs.log").unlink(missing_ok=True)

    def _make_template(self) -> None:
        project = Project(self._template, self.environment)
        self._template.mkdir()
        project.copy_source(_COPIED)
        project.judge_by_one_photo()
        shutil.copy(_TOYS / "toy_dvc.yaml", self._template / "dvc.yaml")
        for path in _TOYS.glob("*.py"):
            shutil.copy(path, self._template / "tasks")
        for name, value in {"machine.workers": 1, "promote.keep": 2, "preprocess.test_share": 0.25, **ANY}.items():
            project.set_param(name, value)
        for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
            project.succeed(*command)


def _copy_missing(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file():
            shutil.copy2(path, target)
        elif not (target / path.name).exists():
            shutil.copytree(path, target / path.name)


def photo_of(name: str, colour: tuple[int, int, int]) -> bytes:
    """A photo whose pixels follow from its name."""
    random = np.random.default_rng(list(name.encode()))
    pixels = np.clip(random.normal(colour, 30, (10, 12, 3)), 0, 255).astype(np.uint8)
    contents = BytesIO()
    Image.fromarray(pixels).save(contents, "PNG")
    return contents.getvalue()


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for one project."""
    return tempfile.TemporaryDirectory(prefix="regraft-state-machine-")
