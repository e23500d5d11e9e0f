"""A toy project for the tests of the seam: three stages that take no time, the real seam, the real dvc.

    record_code,  data/raw  ->  first  ->  second  ->  third

The third stage reads data/raw too, and each has its own section of params.yaml. The code of `second` uses NumPy.
Tests give orders to a stage by files in orders/, which DVC does not know: wait, fail, or edit a file while it runs.
"""

import json
from pathlib import Path
from typing import Any

from tests.support.project import SOURCE, Command, Project

STAGES = ["first", "second", "third"]
PARAMS = {
    "first": "validate_data.max_pixels",
    "second": "preprocess.val_share",
    "third": "evaluate.target_precision",
}
DVC, FLOW = "dvc repro", "in-process"  # the two runners; the second does what a flow does, without Prefect around it
COMMANDS = {DVC: ["dvc", "repro"], FLOW: ["python", "in_process.py"]}
KINDS = {
    "git": [["git", "init", "--quiet"], ["dvc", "init", "--quiet"]],
    "no-git": [["dvc", "init", "--quiet", "--no-scm"]],
}
_COPIED = ["params.yaml", "prefect.yaml", "pyproject.toml", "requirements.lock", ".dvcignore", "regraft"]
_COPIED += ["flows", "tasks/runs"]
_COPIED += [
    path.relative_to(SOURCE).as_posix()
    for path in sorted((SOURCE / "tasks").glob("*.py"))
    if path.stem == "record_code" or "@stage" not in path.read_text().splitlines()
]

_DVC_YAML = """\
stages:
  record_code:
    cmd: python -m tasks.record_code
    deps: [regraft, tasks, requirements.lock]
    outs:
      - build/provenance.json:
          persist: true
  first:
    cmd: python -m tasks.first
    deps: [data/raw]
    params: [validate_data, build/provenance.json: [first]]
    outs: [build/first.txt]
  second:
    cmd: python -m tasks.second
    deps: [build/first.txt]
    params: [preprocess, build/provenance.json: [second]]
    outs: [build/second.txt]
  third:
    cmd: python -m tasks.third
    deps: [data/raw, build/second.txt]
    params: [evaluate, build/provenance.json: [third]]
    outs: [build/third.txt]
"""

_STAGE = '''\
"""Toy stage {name}."""

from pathlib import Path

from orders import obey
from regraft.core.config import Params
from tasks.progress import Progress
from tasks.stage import stage


@stage
def {name}(params: Params, progress: Progress) -> None:
    """Write what was read, and the param."""
    result = [*{reads}, f"{{params.{param}}}", VERSION]
    obey("{name}")
    Path("build").mkdir(exist_ok=True)
    Path("build/{name}.txt").write_text("\\n".join(result) + "\\n")


def unused():
    {imports}


VERSION = "version 1"

if __name__ == "__main__":
    {name}.run()
'''

_READS = {
    "first": "sorted(path.name for path in params.paths.raw.iterdir())",
    "second": 'Path("build/first.txt").read_text().split("\\n")',
    "third": '[file.read_text() for file in [Path("build/second.txt"), *sorted(params.paths.raw.iterdir())]]',
}

_IMPORTS = {"first": "import regraft.core.files", "second": "import numpy", "third": "import regraft.core.errors"}

_ORDERS = '''\
"""What a test makes a toy stage do."""

import json
import time
from pathlib import Path

from regraft.core.errors import InvalidData


def obey(name):
    with Path("runs.log").open("a") as log:
        log.write(name + "\\n")
    if (order := Path(f"orders/{name}.edit")).exists():
        path, text = json.loads(order.read_text())
        Path(path).write_text(text)
    if (order := Path(f"orders/{name}.fail")).exists():
        raise InvalidData(json.loads(order.read_text()))
    order, give_up = Path(f"orders/{name}.wait"), time.monotonic() + 120
    if order.exists():
        Path(f"orders/{name}.started").touch()
    while order.exists() and time.monotonic() < give_up:
        time.sleep(0.02)
'''

_IN_PROCESS = '''\
"""What a flow does with its stages, without Prefect: prints every stage's outcome as JSON."""

import json

from regraft.core.params_file import load_params
from tasks.first import first
from tasks.record_code import record_code
from tasks.second import second
from tasks.project import enter_project, readable_errors
from tasks.dvc_seam import reproduce
from tasks.progress import terminal_progress
from tasks.third import third

outcomes = {}
with readable_errors("in_process"):
    root = enter_project()
    for stage in (record_code, first, second, third):
        function = lambda: stage._run(load_params(root / "params.yaml"), terminal_progress)
        outcomes[stage.name] = reproduce(root, stage.name, function)
print(outcomes.pop("record_code"))
print(json.dumps(outcomes))
'''

_CHAIN = '''\
"""The toy project's flow, as flows/retrain.py is the real one's."""

from prefect import runtime

import tasks.runs.live_runs
import tasks.step
from flows.promote import record_data
from flows.run import run, start
from tasks.first import first
from tasks.record_code import record_code
from tasks.second import second
from tasks.project import readable_errors
from tasks.third import third

tasks.step._LOOK_SECONDS = tasks.runs.live_runs._LOOK_SECONDS = 0.3


@run
def chain():
    print("flow run", runtime.flow_run.id)
    record_data()
    record_code()
    first()
    second()
    third()


if __name__ == "__main__":
    with readable_errors("chain"):
        start(chain)
'''


class Toy(Project):
    """The toy project."""

    def bring_up_to_date(self, runner: str) -> Command:
        """Run the whole chain."""
        return self.run(*COMMANDS[runner])

    def start_and_stop_in(self, stage: str, *arguments: str, **variables: str) -> Command:
        """Start a command that then waits in the middle of a stage."""
        self.order(stage, "wait")
        command = self.start(*arguments, **variables)
        command.wait_until((self.root / "orders" / f"{stage}.started").exists, f"it is in the middle of {stage}")
        return command

    def order(self, stage: str, order: str, what: Any = None) -> None:
        """Make a stage `wait`, `fail` with a message, or `edit` a path to a text while it runs."""
        self.write(f"orders/{stage}.{order}", json.dumps(what))

    def withdraw(self, stage: str, order: str) -> None:
        """Take an order back; a stage that waits goes on."""
        (self.root / "orders" / f"{stage}.{order}").unlink()

    def end(self) -> None:
        """Kill what still runs; a stage that outlived the command that started it does not wait any longer."""
        for order in self.root.glob("orders/*.wait"):
            order.unlink()
        super().end()

    def edited_module(self, stage: str, version: int = 2) -> str:
        """Return the text of a stage's module, edited so that its results differ."""
        return self.read(f"tasks/{stage}.py").replace("version 1", f"version {version}")

    @property
    def runs(self) -> list[str]:
        """The stages whose function was started since `forget_runs`, in this order."""
        log = self.root / "runs.log"
        return log.read_text().split() if log.exists() else []

    def forget_runs(self) -> None:
        """Start counting anew."""
        self.write("runs.log", "")

    @property
    def results(self) -> dict[str, str]:
        """Everything that a run leaves behind: the outputs and dvc.lock."""
        paths = [self.root / "dvc.lock", *(self.root / "build").glob("*.txt")]
        return {path.name: path.read_text() for path in paths}


def build_toy(root: Path, environment: dict[str, str]) -> Toy:
    """Make the toy project in an empty folder; DVC does not know it yet."""
    toy = Toy(root, environment)
    toy.copy_source(_COPIED)
    toy.write("dvc.yaml", _DVC_YAML)
    toy.write("orders.py", _ORDERS)
    toy.write("in_process.py", _IN_PROCESS)
    toy.write("flows/chain.py", _CHAIN)
    for name in STAGES:
        toy.write(
            f"tasks/{name}.py", _STAGE.format(name=name, reads=_READS[name], imports=_IMPORTS[name], param=PARAMS[name])
        )
    for fruit in ("apple", "banana", "cherry"):
        toy.write(f"data/raw/{fruit}.txt", f"one {fruit}")
    return toy
