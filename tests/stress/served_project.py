"""A project of real or toy stages under `regraft serve`, on a port of its own: what is started, killed and looked at.

Its photos are one of two sets, `a` and `b`, which differ in one photo; a run of the other set does every stage anew.
"""

import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from regraft.core.files import sha256_of
from regraft.production.run_history import Row, read_rows
from tasks.runs.prefect_api import Api, ServerAway
from tests.stress.processes import kill, processes_in, words_of
from tests.support.eight_stages import CLASSES as FRUITS
from tests.support.eight_stages import photo_of
from tests.support.prefect_server import free_port
from tests.support.project import REGRAFT, SOURCE, Project, clean_environment
from tests.support.small_project import write_photos

STAGES = ["record_code", "validate_data", "preprocess", "cache_features", "check_features"]
STAGES += ["train_head", "choose_base", "train_base", "fine_tune", "export_onnx", "quantise", "evaluate"]
# What the gate cannot decide on a handful of photos goes into production.
_ANY = {"promote.when_undecided": "promote", "promote.keep": 2}
_TOY = {"machine.workers": 1, "preprocess.test_share": 0.25}
_REAL = {"backbone.weights": None, "backbone.image_size": 64, "preprocess.val_share": 0.25}
_REAL |= {"preprocess.test_share": 0.25, "fine_tune.epochs": 2}
_REAL |= {"backbone.cut": "block13_add"}
_SOURCE = ["regraft", "tasks", "flows", "expectations", "params.yaml", "dvc.yaml", "prefect.yaml", "automations.yaml"]
_SOURCE += ["pyproject.toml", "requirements.lock", ".gitignore", ".dvcignore"]
_TOYS = SOURCE / "tests" / "support" / "toy_stages"
_HELD = Path(".dvc", "tmp", "regraft-held")
_RECEIPT = "reports/features.json"  # says how many rows the store had, which a kill may change
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PARTS = {
    "worker": ("flows.prefect_server.child", "worker"),
    "server": ("flows.prefect_server.guarded_server",),
    "watch": ("flows.prefect_server.child", "watch"),
}


@dataclass(frozen=True, slots=True)
class Held:
    """A run that stands still."""

    pid: int
    where: str
    order: int  # of those given, from 0


class ServedProject(Project):
    """The project's folder, and its `regraft serve`."""

    def __init__(self, folder: Path, *, is_toy: bool, patience: float = 240.0) -> None:
        super().__init__(folder / "project", clean_environment(folder / "home"), patience)
        del self.environment["DVC_SITE_CACHE_DIR"]  # it lies in the project
        self.environment["PREFECT_WORKER_QUERY_SECONDS"] = "2"  # instead of 10: rounds are shorter, and nothing else
        self.port, self.is_toy, self.served, self._api = free_port(), is_toy, None, None
        self.root.mkdir(parents=True)
        self.copy_source(_SOURCE)
        self.judge_by_one_photo()
        if is_toy:
            shutil.copy(_TOYS / "toy_dvc.yaml", self.root / "dvc.yaml")
            for path in _TOYS.glob("*.py"):
                shutil.copy(path, self.root / "tasks")
            self._edit("flows/retrain.py", "    write_report()\n", "")  # toys have no figures for pages
            self._edit("tasks/stage.py", "if not step.is_followed():", "if True:")
        settings = _ANY | (_TOY if is_toy else _REAL) | {"nights.settle_seconds": 3600}  # runs are started by hand here
        for name, value in settings.items():
            self.set_param(name, value)
        self._edit("flows/prefect_server/connection.py", "PORT = 4200", f"PORT = {self.port}")
        self._edit("flows/planned_run.py", "import os\n", "import kill_points  # noqa: F401\nimport os\n")
        shutil.copy(SOURCE / "tests" / "stress" / "kill_points.py", self.root)
        shutil.copy(SOURCE / "tests" / "support" / "step_hook.py", self.root)
        self._write_photos()
        for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
            self.succeed(*command)
        (self.root / _HELD).mkdir(parents=True)

    def serve(self) -> float:
        """Start `regraft serve` and return the seconds until it says that all is up."""
        began = time.monotonic()
        self.served = self.start(*REGRAFT, "serve")
        self.served.wait_until(lambda: "Ctrl-C ends" in self.output_of_serve, "regraft serve is up")
        return time.monotonic() - began

    @property
    def output_of_serve(self) -> str:
        """What `regraft serve` has said."""
        assert self.served
        return self.served.output

    @property
    def api(self) -> Api:
        """Its Prefect server."""
        if self._api is None:
            password = Path(self.environment["PREFECT_HOME"], "regraft-login").read_text().strip()
            self._api = Api(f"http://127.0.0.1:{self.port}/api", password)
        return self._api

    def deployment(self, name: str = "retrain-nightly") -> str:
        """Return the id of a deployment."""
        (found,) = self.api.post("deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return found["id"]

    def state_of(self, run: str) -> dict[str, Any]:
        """Return the state of a planned run; ServerAway if nobody knows at the moment."""
        return self.api.get(f"flow_runs/{run}")["state"]

    def plan_run(self, name: str = "retrain-nightly") -> str:
        """Plan a run for now, as the schedule does, and return its id."""
        return self.api.post(f"deployments/{self.deployment(name)}/create_flow_run", {})["id"]

    def use_photos(self, which: str) -> None:
        """Let the photos be set `a` or `b`."""
        spare = self.root.parent / "spare.png"
        place = next((self.root / "data" / "raw").iterdir()) / "spare.png" if not self.is_toy else self._toy_place()
        if which == "b":
            shutil.copy(spare, place)
        else:
            place.unlink(missing_ok=True)

    def forget_results(self, *, store: bool) -> None:
        """Let nothing be restored: neither from DVC's run cache nor, if asked for, from the store."""
        shutil.rmtree(self.root / ".dvc" / "cache" / "runs", ignore_errors=True)
        if store:
            for shard in self.root.glob("build/store/*-*/*.arrow"):
                shard.unlink(missing_ok=True)

    def hold(self, orders: list[tuple[str, int]]) -> None:
        """Let the next planned run stand still at places and changes of a disk, one after the other (`kill_points`)."""
        self.forget_orders()
        contents = json.dumps([{"where": where, "change": change} for where, change in orders])
        (self.root / _HELD / "hold.new").write_text(contents)
        (self.root / _HELD / "hold.new").rename(self.root / _HELD / "hold.json")

    @property
    def held(self) -> Held | None:
        """The run that stands still at this moment."""
        try:
            return Held(**json.loads((self.root / _HELD / "held.json").read_text()))
        except FileNotFoundError:
            return None

    def go_on(self) -> None:
        """Let it go on."""
        (self.root / _HELD / "held.json").unlink(missing_ok=True)

    def forget_orders(self) -> None:
        """Let nobody stand still any more."""
        for path in (self.root / _HELD).iterdir():
            path.unlink()

    def part(self, name: str) -> psutil.Process | None:
        """Return the process of a part of `regraft serve`."""
        assert self.served
        children = psutil.Process(self.served.process.pid).children()
        return next((each for each in children if all(word in words_of(each) for word in PARTS[name])), None)

    def kill_all(self) -> None:
        """Kill every process of the project at once, as a power cut does; the one that starts others first."""
        assert self.served
        self.served.process.kill()
        while processes := processes_in(self.root):
            for process in processes:
                kill(process.pid, signal.SIGKILL)
            time.sleep(0.02)
        self.served.process.wait()

    def orphans(self) -> list[str]:
        """Return the processes of the project that are no part of `regraft serve`."""
        assert self.served
        try:
            served = psutil.Process(self.served.process.pid)
            ours = {served.pid, *(child.pid for child in served.children(recursive=True))}
        except psutil.NoSuchProcess:
            ours = set()
        return [
            f"{each.pid} {' '.join(words_of(each))[:150]}" for each in processes_in(self.root) if each.pid not in ours
        ]

    def state(self) -> dict[str, object]:
        """Return all that must be the same whatever was killed."""
        stages = YAML(typ="safe").load(self.read("dvc.lock"))["stages"]
        outs = {out["path"]: out["md5"] for name in STAGES for out in stages[name]["outs"]}
        bad = [path for path in outs if path != _RECEIPT and not (self.root / path).exists()]
        outs.pop(_RECEIPT, None)
        models = {name: _digest(self.root / "models" / name) for name in ("model.onnx", "production/model.onnx")}
        state: dict[str, object] = {f"dvc.lock: {path}": md5 for path, md5 in outs.items()}
        return state | models | {"missing": bad}

    def rows(self) -> list[Row]:
        """Return the history of runs."""
        return read_rows(self.root / "models" / "production")

    def run_of(self, pid: int) -> str | None:
        """Return the name of the run that a living process is, once it has one."""
        for path in (self.root / ".dvc/tmp/regraft/runs").glob("*.json"):
            try:
                found = json.loads(path.read_text())
            except (FileNotFoundError, ValueError):
                continue
            if found["pid"] == pid:
                return found["run"]
        return None

    def leftovers(self) -> list[str]:
        """Return half-written files: whoever writes gives them their name only at the end."""
        found = [*self.root.rglob("*.tmp"), *self.root.rglob("*.tmp.*"), *self.root.rglob(".*.tmp*")]
        return sorted({path.relative_to(self.root).as_posix() for path in found})

    def _toy_place(self) -> Path:
        return self.root / "data" / "raw" / "plum" / "spare.png"

    def _write_photos(self) -> None:
        raw = self.root / "data" / "raw"
        if self.is_toy:
            for fruit in FRUITS:
                (raw / fruit).mkdir(parents=True)
                for number in range(12):
                    (raw / fruit / f"{number}.png").write_bytes(photo_of(f"{fruit}{number}", FRUITS[fruit]))
            (self.root.parent / "spare.png").write_bytes(photo_of("spare", FRUITS["plum"]))
        else:
            write_photos(raw)
            more = self.root.parent / "more"
            write_photos(more, per_class=1, seed=2)
            shutil.copy(next((more / next(raw.iterdir()).name).iterdir()), self.root.parent / "spare.png")

    def _edit(self, file: str, old: str, new: str) -> None:
        text = self.read(file)
        assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
        self.write(file, text.replace(old, new))


def wait_for(happened: Callable[[], Any], seconds: float) -> bool:
    """Return whether it happened in time; a server that is away has not happened."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            if happened():
                return True
        except ServerAway:
            pass
        time.sleep(0.2)
    return False


def _digest(path: Path) -> str:
    return sha256_of(path) if path.exists() else "missing"
