"""What a user does, and sees: a project in a temporary folder, commands in it, and the files that they leave behind.

It knows of Regraft what README.md and docs/ say, and imports nothing of it, nor of the other tests.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from ruamel.yaml import YAML

SOURCE = Path(__file__).parents[2]
PHOTOS = SOURCE / "tests" / "data" / "photos"  # 60 photos of clothes, in folders by split and class
REGRAFT = ("python", "-m", "flows.cli")  # the command `regraft` with the code of the folder that it runs in
COPIED = ["regraft", "tasks", "flows", "expectations", "docs/classify.py", "dvc.yaml", "params.yaml", "prefect.yaml"]
COPIED += ["automations.yaml", "pyproject.toml", "requirements.lock", ".gitignore", ".dvcignore"]
_PATIENCE_SECONDS = 400.0  # a machine that others use as well is slow

# Small and quick: what is tested is no figure of accuracy.
QUICK = {
    "backbone.image_size": 64,
    "backbone.cut": "block13_add",  # TensorFlow takes seconds to trace each block above it
    "cache_features.views": 0,
    "fine_tune.epochs": 1,
}


@dataclass(frozen=True)
class Command:
    """A command that was started, in a process group of its own; what it prints goes to files."""

    process: subprocess.Popen[bytes]
    prints: Path
    warns: Path

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return self.prints.read_text()

    @property
    def output(self) -> str:
        """What a person saw so far."""
        return self.stdout + self.warns.read_text()

    @property
    def status(self) -> int:
        """Its exit status, when it has ended."""
        return self.process.wait(_PATIENCE_SECONDS)

    def wait_until(self, happened: Callable[[], Any], what: str, *, pause: float = 0.02) -> None:
        """Wait for something that it does before it ends, and look for it after every pause, in seconds."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not happened():
            assert self.process.poll() is None, f"ended too early for this: {what}\n{self.output}"
            assert time.monotonic() < give_up, f"waited in vain for this: {what}\n{self.output}"
            time.sleep(pause)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

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
    _started: list[Command] = field(default_factory=list)

    @property
    def raw(self) -> Path:
        """The data folder."""
        return self.root / "data" / "raw"

    def start(self, *arguments: str, **variables: str) -> Command:
        """Start a command."""
        number = len(self._started)
        prints, warns = (self.root.parent / f"{number}.{name}" for name in ("stdout", "stderr"))
        with prints.open("wb") as stdout, warns.open("wb") as stderr:
            process = subprocess.Popen(
                arguments,
                cwd=self.root,
                env=self.environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._started.append(Command(process, prints, warns))
        return self._started[-1]

    def run(self, *arguments: str, **variables: str) -> Command:
        """Run a command to its end."""
        command = self.start(*arguments, **variables)
        assert command.status is not None
        return command

    def succeed(self, *arguments: str, **variables: str) -> Command:
        """Run a command that must not fail."""
        command = self.run(*arguments, **variables)
        assert command.status == 0, f"{' '.join(arguments)} failed:\n{command.output}"
        return command

    def regraft(self, *arguments: str, **variables: str) -> Command:
        """Run a command of Regraft to its end."""
        return self.run(*REGRAFT, *arguments, **variables)

    def end(self) -> None:
        """Kill what still runs."""
        for command in self._started:
            command.kill()

    def set_params(self, values: dict[str, Any]) -> None:
        """Change values in params.yaml."""
        params = YAML(typ="safe").load(self.read("params.yaml"))
        for name, value in values.items():
            *sections, key = name.split(".")
            section = params
            for part in sections:
                section = section[part]
            section[key] = value
        with (self.root / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(params, file)

    def set_limits(self, limits: dict[str, float]) -> None:
        """Change limits of expectations that come with Regraft: the fewest, or the most, that they allow."""
        path = self.root / "expectations" / "photos.json"
        suite = json.loads(path.read_text())
        for each in suite["expectations"]:
            if each["meta"]["name"] in limits:
                limit = limits[each["meta"]["name"]]
                each["kwargs"] |= {"min_value": limit} if "min_value" in each["kwargs"] else {"mostly": 1 - limit}
        path.write_text(json.dumps(suite))

    def listen_on(self, port: int) -> None:
        """Let the server of `regraft serve` listen on a port of the test's own: no setting says where it does."""
        for path in (self.root / "flows").rglob("*.py"):
            text = path.read_text()
            if "4200" in text:
                path.write_text(text.replace("4200", str(port)))

    def read(self, path: str) -> str:
        """Return a file's text."""
        return (self.root / path).read_text()

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def report(self, name: str) -> dict[str, Any]:
        """Return a report in JSON."""
        return json.loads(self.read(f"reports/{name}.json"))

    def table(self, path: str) -> list[dict[str, str]]:
        """Return the rows of a CSV file."""
        with (self.root / path).open(newline="") as file:
            return list(csv.DictReader(file))

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a file."""
        return sha256_of(self.root / path)

    def receipt(self) -> dict[str, Any]:
        """Return the newest receipt."""
        return json.loads(max(self.root.glob("receipts/*.json"), key=lambda path: path.stat().st_mtime_ns).read_text())

    def copy(self, folder: Path) -> "Project":
        """Copy the project, with all that it has computed, into a new folder."""
        return Project(shutil.copytree(self.root, folder / "project", symlinks=True), self.environment)


def new_project(folder: Path, environment: dict[str, str], settings: dict[str, Any] | None = None) -> Project:
    """Make a project in a new git repository: the real source, no photos, and some settings changed."""
    project = Project(folder / "project", environment)
    for path in COPIED:
        target = project.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (SOURCE / path).is_dir():
            shutil.copytree(SOURCE / path, target)  # with what Python has compiled, which takes seconds
        else:
            shutil.copy2(SOURCE / path, target)
    rule = project.root / "regraft/production/gate/rule.py"  # a dozen photos are compared here, where 30 are needed
    rule.write_text(rule.read_text().replace("MIN_PHOTOS = 30", "MIN_PHOTOS = 1"))
    project.raw.mkdir(parents=True)
    project.set_params(QUICK | (settings or {}))
    project.succeed("git", "init", "--quiet")
    project.succeed("dvc", "init", "--quiet")
    return project


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment of every command: no settings of this machine, and `home` in place of the real one."""
    unwanted = ("PREFECT_", "DVC_", "GIT_", "PYTHON", "XDG_", "VIRTUAL_ENV", "MPL", "KERAS_", "TF_", "AWS_", "REGRAFT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    (home / "dvc").mkdir(parents=True)
    (home / "dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (home / ".gitconfig").write_text("[user]\n    name = A user\n    email = user@example.org\n")
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-cache"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outcomes_of(output: str) -> dict[str, str]:
    """Return the outcome of every step, as a run without a server prints it."""
    return dict(re.findall(r"^(\w+): ([A-Z][a-z ]+)$", output, re.M))


def take_digits(source: Path, target: Path, digits: str, first: int, last: int) -> int:
    """Copy photos first to last - 1 of each digit from a folder of `regraft table demo:digits`; return how many."""
    count = 0
    for digit in digits:
        (target / digit).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / digit).glob("*.png"))[first:last]:
            shutil.copy2(path, target / digit / path.name)
            count += 1
    return count


def save_photo(path: Path, pixels: Any) -> None:
    """Write an image; its suffix says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
