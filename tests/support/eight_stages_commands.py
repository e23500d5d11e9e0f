"""The commands of the toy project of eight stages (`tests.support.eight_stages`), each in a process forked here.

Started in the toy's folder, so that `regraft` and `tasks` are the toy's. Reads orders from standard input, one JSON
object a line, and answers each with the exit status.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import dvc.cli
import dvc.commands.repro
import filelock  # noqa: F401 - as the two above: imported once for all commands

from regraft.core.params_file import load_params
from regraft.photos.dataset import read_dataset
from regraft.store.upkeep import collect
from tasks import promote as gate
from tasks.dvc_seam import record_data, reproduce
from tasks.history import features_versions, models_in_use
from tasks.progress import terminal_progress
from tasks.project import enter_project, readable_errors
from tasks.safe_dvc import make_safe
from tasks.up_to_date import nothing_to_do
from tests.support.eight_stages import CRASHED, STAGES
from tests.support.step_hook import strike_at


def flow(promote: bool) -> int:
    """What `regraft retrain` does with its stages and the gate, without Prefect."""
    root = enter_project()
    print(record_data(root, load_params(root / "params.yaml").paths.raw))
    for name in ("record_code", *STAGES):
        stage = getattr(__import__(f"tasks.{name}", fromlist=[name]), name)

        def run(stage: Any = stage) -> None:
            stage._run(load_params(root / "params.yaml"), terminal_progress)

        print(name, reproduce(root, name, run))
    return challenge() if promote else 0


def challenge() -> int:
    """What `regraft promote` does, without Prefect."""
    with terminal_progress("promote_model") as progress:
        verdict = gate.challenge(load_params(Path("params.yaml")), progress)
    print(verdict.words)
    return 2 if verdict.name == "Refused" else 0


def repro() -> int:
    """`dvc repro` of an environment that Regraft is installed in."""
    make_safe()
    return dvc.cli.main(["repro"]) or 0


def change(what: str) -> int:
    """`regraft promote --rollback` and `--force`."""
    params = load_params(Path("params.yaml"))
    print(gate.told(gate.rollback(params) if what == "rollback" else gate.force(params, "a test")))
    return 0


def gc(keep: int) -> int:
    """`regraft store --gc 10`."""
    paths = load_params(Path("params.yaml")).paths
    versions = features_versions(Path(), paths.features, keep=keep)
    collect(paths.store, None, versions, in_use=models_in_use(paths), really=True)
    return 0


def unread() -> int:
    """Fail if the store lacks a row that the present data set needs."""
    from tasks.toy_parts import extractor_of  # type: ignore[import-not-found] - of the toy

    params = load_params(Path("params.yaml"))
    extractor = extractor_of(params)
    missing = extractor.store.features.missing(extractor.keys(read_dataset(params.paths.dataset, params.paths.raw)))
    print(f"{len(missing)} rows are missing")
    return 1 if missing else 0


def ask() -> int:
    """What a run is told that asks before it starts anything."""
    found = nothing_to_do(enter_project(), promote=False)
    print(": ".join(found) if found else None)
    return 0


_COMMANDS = {"flow": flow, "repro": repro, "promote": challenge, "gc": gc, "unread": unread, "ask": ask}


def _child(order: dict[str, Any]) -> int:
    os.setsid()
    terminal = os.open(order["log"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (terminal, 1), (terminal, 2)):
        os.dup2(source, target)
    if order["kill_at"]:
        strike_at(order["kill_at"], lambda: os.killpg(0, signal.SIGKILL))
    what, arguments = order["what"], order["arguments"]
    with readable_errors(what):
        return _COMMANDS[what](**arguments) if what in _COMMANDS else change(what)


def main() -> None:
    """Fork a process for every order."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = CRASHED
            try:
                status = _child(json.loads(line))
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException:  # told to the test, whatever it is
                traceback.print_exc()
                status = CRASHED
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, ended = os.waitpid(pid, 0)
        print(json.dumps(os.waitstatus_to_exitcode(ended)), flush=True)


if __name__ == "__main__":
    main()
