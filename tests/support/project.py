"""A project in a temporary folder, and commands in it. Every command is a process of its own, as a person starts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ruamel.yaml import YAML

SOURCE = Path(__file__).parents[2]
REGRAFT = ("python", "-m", "flows.cli")  # the command `regraft` with the code of the folder that it runs in


@dataclass(frozen=True)
class Command:
    """A command that was started, in a process group of its own; what it prints goes to files."""

    process: subprocess.Popen[bytes]
    prints: Path
    warns: Path
    patience: float  # seconds after which a test gives up

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return self.prints.read_text()

    @property
    def output(self) -> str:
        """What a person saw so far."""
        return self.stdout + self.warns.read_text()

    @property
    def outcomes(self) -> dict[str, str]:
        """The last line that it printed, as JSON."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def status(self) -> int:
        """Its exit status, when it has ended."""
        return self.process.wait(self.patience)

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for something that it does before it ends."""
        give_up = time.monotonic() + self.patience
        while not happened():
            assert self.process.poll() is None, f"ended too early for this: {what}\n{self.output}"
            assert time.monotonic() < give_up, f"waited in vain for this: {what}\n{self.output}"
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it and everything that it started, at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Project:
    """A project's folder."""

    root: Path
    environment: dict[str, str]
    patience: float = 150.0  # a machine that others use as well is slow
    _started: list[Command] = field(default_factory=list)

    def start(self, *arguments: str, folder: str = ".", **variables: str) -> Command:
        """Start a command."""
        number = len(self._started)
        prints, warns = (self.root.parent / f"{number}.{name}" for name in ("stdout", "stderr"))
        with prints.open("wb") as stdout, warns.open("wb") as stderr:
            process = subprocess.Popen(
                arguments,
                cwd=self.root / folder,
                env=self.environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._started.append(Command(process, prints, warns, self.patience))
        return self._started[-1]

    def run(self, *arguments: str, folder: str = ".", **variables: str) -> Command:
        """Run a command to its end."""
        command = self.start(*arguments, folder=folder, **variables)
        assert command.status is not None
        return command

    def succeed(self, *arguments: str, **variables: str) -> Command:
        """Run a command that must not fail."""
        command = self.run(*arguments, **variables)
        assert command.status == 0, f"{' '.join(arguments)} failed:\n{command.output}"
        return command

    def end(self) -> None:
        """Kill what still runs."""
        for command in self._started:
            command.kill()

    def copy(self, folder: Path) -> Self:
        """Copy the project into an empty folder."""
        return type(self)(shutil.copytree(self.root, folder / "project"), self.environment, self.patience)

    def copy_source(self, paths: list[str]) -> None:
        """Copy files and folders from the real project."""
        for path in paths:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            if (SOURCE / path).is_dir():
                shutil.copytree(SOURCE / path, self.root / path, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(SOURCE / path, self.root / path)

    def judge_by_one_photo(self) -> None:
        """Let the gate decide on one test photo in place of thirty: small projects have no more."""
        path = "regraft/production/gate/rule.py"
        self.write(path, self.read(path).replace("MIN_PHOTOS = 30", "MIN_PHOTOS = 1"))

    def read(self, path: str) -> str:
        """Return a file's text."""
        return (self.root / path).read_text()

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def params_with(self, name: str, value: Any) -> str:
        """Return the text of params.yaml with one value changed."""
        params = YAML(typ="safe").load(self.read("params.yaml"))
        *sections, key = name.split(".")
        section = params
        for part in sections:
            section = section[part]
        assert section[key] != value, f"{name} is {value} already"
        section[key] = value
        with (self.root.parent / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(params, file)
        return (self.root.parent / "params.yaml").read_text()

    def set_param(self, name: str, value: Any) -> None:
        """Change one value in params.yaml."""
        self.write("params.yaml", self.params_with(name, value))


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
