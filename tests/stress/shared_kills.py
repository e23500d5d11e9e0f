"""Kill -9 of three machines that fill one store in S3, which fails every tenth call: no row may ever be wrong.

    python -m tests.stress.shared_kills [KILLS] [FOLDER]

Each machine has a folder of its own. After each round a machine that has nothing looks at every row of the shared store
and compares it with what it must be. The last line is JSON.
"""

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import s3fs  # noqa: F401 - imported once for all processes

from regraft.core.errors import Busy
from regraft.store.leases import store_in_use
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import key_of
from regraft.store.upkeep import compact
from tests.support.faulty_s3 import FAULTS, faulty_s3

MACHINES = 3
_ROWS, _NUMBERS, _BATCH = 400, 300, 16
_KEYS = [key_of(f"{number:064x}") for number in range(_ROWS)]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def value_of(row: int) -> np.ndarray:
    """What a row must be."""
    return np.random.default_rng(row).normal(size=_NUMBERS).astype(np.float32)


def open_store(root: Path, address: str, table: int) -> Namespace:
    """Open one of the tables that are filled one after the other."""
    return open_namespace(root, "features", {"table": table}, shape=(_NUMBERS,), dtype="float32", shared=address)


def wrong_rows(store: Namespace) -> tuple[int, int]:
    """Return how many rows are there and sound, and how many of them are not what they must be."""
    missing = set(store.missing(_KEYS))
    rows = [row for row, key in enumerate(_KEYS) if key not in missing]
    values = store.read([_KEYS[row] for row in rows])
    return len(rows), sum(not np.array_equal(found, value_of(row)) for found, row in zip(values, rows, strict=True))


def work(root: Path, address: str, environment: dict[str, str], table: int, seed: int, merges: bool) -> None:
    """Fill the store until nothing is missing, looking at some rows and at the others' work in between; or merge it."""
    os.environ.update(environment)
    if merges:
        with suppress(Busy), open(os.devnull, "w") as nowhere:  # noqa: PTH123
            sys.stdout = nowhere
            compact(root, address)
        return
    random = np.random.default_rng(seed)
    with store_in_use(root, address):
        store = open_store(root, address, table)
        while missing := store.missing(_KEYS, verify=False):
            keys = [missing[place] for place in random.permutation(len(missing))[:_BATCH]]
            store.append(keys, np.stack([value_of(_KEYS.index(key)) for key in keys]), seconds=1)
            store.flush()
            if random.random() < 0.3:
                store.refresh()
            if random.random() < 0.2 and wrong_rows(store)[1]:
                os._exit(3)


@dataclass(slots=True)
class Tally:
    """What was done, and what was found: `wrong`, `failed` and `lost` must stay 0."""

    kills: int = 0
    rounds: int = 0
    tables: int = 0  # that were filled
    merges: int = 0
    rows_compared: int = 0
    wrong: int = 0
    failed: int = 0  # machines that ended with an error
    lost: int = 0  # rows that were there after a round and not after the next, although no row was damaged
    calls: dict[str, int] = field(default_factory=dict)  # of the server
    seconds: float = 0.0


def play(kills: int, folder: Path, *, every: int = 10, late_seconds: float = 0.0, seed: int = 0) -> Tally:
    """Kill until so many kills are done."""
    tally, random, begun = Tally(), np.random.default_rng(seed), time.monotonic()
    with faulty_s3(every=every, late_seconds=late_seconds) as (server, environment):
        os.environ.update(environment)
        address, before = "s3://faulty/store", 0
        whole = _undisturbed(folder / "first", address, environment)
        while tally.kills < kills:
            merges = bool(random.random() < 0.15)
            tally.merges += merges
            machines = [
                _context.Process(
                    target=work,
                    args=(folder / str(n), address, environment, tally.tables, int(random.integers(2**31)), merges),
                )
                for n in range(1 if merges else MACHINES)
            ]
            for machine in machines:
                machine.start()
            for machine, moment in zip(machines, _moments(random, len(machines), whole), strict=True):
                time.sleep(moment)
                tally.kills += _killed(machine)
                tally.failed += machine.exitcode not in (0, -9)
            tally.rounds += 1
            time.sleep(late_seconds)  # else rows that were merged just now would count as lost
            before = _look(folder / "reader", address, tally, before)
        tally.calls = {name: server.calls[name] for name in ("GET", "PUT", *FAULTS)}
    tally.seconds = round(time.monotonic() - begun, 1)
    return tally


def _undisturbed(root: Path, address: str, environment: dict[str, str]) -> float:
    """Return the seconds that a machine takes to fill a table of its own: kills come within that time."""
    begun = time.monotonic()
    machine = _context.Process(target=work, args=(root, address, environment, -1, 0, False))
    machine.start()
    machine.join()
    if machine.exitcode:
        sys.exit(f"an undisturbed machine ended with status {machine.exitcode}")
    return time.monotonic() - begun


def _moments(random: np.random.Generator, count: int, whole: float) -> Iterator[float]:
    """How long to wait before each kill; what one writes the others need not, so they are at work for longer."""
    yield random.uniform(0.1, 1) * whole
    yield from random.uniform(0, 0.2, count - 1) * whole


def _killed(machine: ForkServerProcess) -> bool:
    machine.kill()
    machine.join()
    return machine.exitcode == -9


def _look(reader: Path, address: str, tally: Tally, before: int) -> int:
    """Compare every row as a machine that has nothing does, and go on to the next table if all rows are there."""
    shutil.rmtree(reader, ignore_errors=True)
    rows, wrong = wrong_rows(open_store(reader, address, tally.tables))
    tally.rows_compared += rows
    tally.wrong += wrong
    tally.lost += max(0, before - rows)
    if rows < _ROWS:
        return rows
    tally.tables += 1
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as temporary:
        found = play(int(sys.argv[1]) if len(sys.argv) > 1 else 200, Path(temporary))
    print(json.dumps(asdict(found)))
    sys.exit(bool(found.wrong or found.failed or found.lost))
