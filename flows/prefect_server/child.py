"""A part of `regraft serve` in a process of its own: it ends soon after `regraft serve` does, however that ends.

python -m flows.prefect_server.child PARENT worker | watch | setup
"""

import os
import runpy
import signal
import sys
import threading
from pathlib import Path

from flows.prefect_server.guarded_server import end_with


def _watch() -> None:
    from flows.prefect_server.watch import watch
    from regraft.core.params_file import load_params

    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    watch(load_params(Path("params.yaml")), over.is_set)


def _work() -> None:
    from flows.prefect_server.events import read_prefect_file

    # With other handlers than Python's own, asyncio does not end at a signal, and Prefect's worker neither.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pools = {deployment["work_pool"]["name"] for deployment in read_prefect_file()["deployments"]}
    # Four at a time: while one works, others may wait for it or for a person.
    sys.argv = ["prefect", "worker", "start", "--type", "process", "--limit", "4", "--pool", min(pools)]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _set_up() -> None:
    from flows.prefect_server.setup_prefect import set_up_here

    for line in set_up_here():
        print(line, flush=True)


if __name__ == "__main__":
    from tasks.project import readable_errors

    end_with(int(sys.argv[1]))
    part = {"worker": _work, "watch": _watch, "setup": _set_up}[sys.argv[2]]
    with readable_errors(sys.argv[2]):
        # What a worker starts as `python` is the Python that Regraft is installed in.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        part()
