"""features.arrow that names rows of the store, against one that holds them: size, seconds, memory.

    python -m benchmarks.features_file 100000 /tmp/folder

Rows are drawn at random, 1,280 numbers each, and lie in shards of 1,024 as extraction writes them. Both files are
written, opened and read by processes of their own: in random order 64 rows at a time, as an epoch of a head with a
hidden layer does, and in order 1,024 at a time, as a pass of a linear one. Each is read twice, since rows that are
named are compared with their checksums the first time. The last line is JSON; ratios are named to held.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from regraft.features.table import read_features, write_features, write_named_features
from regraft.photos.dataset import Dataset
from regraft.store import Namespace, key_of, locate_rows, open_namespace

_DIM, _CLASSES, _SHARD_ROWS = 1280, 10, 1024
_WRITERS = {"held": write_features, "named": write_named_features}


@dataclass(frozen=True)
class _Source:
    """Rows of a store, as `Extractor` gives them."""

    store: Namespace
    feature_dim: int = _DIM
    augmented_views: int = 0

    @property
    def namespace(self) -> str:
        return self.store.folder.name

    @property
    def views(self) -> "_Source":
        return self

    def key(self, source: str, view: int) -> bytes:
        return key_of(source, view)

    def read_features(self, sources: Sequence[str], view: int) -> np.ndarray:
        return self.store.read([key_of(source, view) for source in sources])

    def checksums(self, sources: Sequence[str], view: int) -> np.ndarray:
        return self.store.checksums([key_of(source, view) for source in sources])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=int)
    parser.add_argument("folder", type=Path, help="that is filled: 5 kB a row, twice")
    parser.add_argument("--part", choices=["write", "read"], help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=list(_WRITERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        measured = (_written if arguments.part == "write" else _read)(arguments.rows, arguments.folder, arguments.kind)
        print(json.dumps(measured | {"peak_mb": _peak_mb()}))
        return
    _fill(_store(arguments.folder), arguments.rows)
    figures = {f"{part}_{kind}": _in_process(arguments, part, kind) for part in ("write", "read") for kind in _WRITERS}
    held, named = figures["read_held"], figures["read_named"]
    ratios = {name: round(named[name] / held[name], 2) for name in held}
    print(json.dumps({"rows": arguments.rows, **figures, "ratios": ratios}))


def _peak_mb() -> int:
    """Most memory that this process had; getrusage would count that of its parent too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return round(int(found[1]) / 1e3) if found else 0


def _in_process(arguments: argparse.Namespace, part: str, kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.features_file", str(arguments.rows), str(arguments.folder)]
    command += ["--part", part, "--kind", kind]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    print(f"{part} {kind}: {said}", flush=True)
    return json.loads(said)


def _store(folder: Path) -> Namespace:
    return open_namespace(folder / "store", "features", {"engine": "none"}, shape=(_DIM,), dtype="float32")


def _digests(rows: int) -> list[str]:
    return [row.tobytes().hex() for row in np.random.default_rng(0).integers(0, 256, (rows, 32), np.uint8)]


def _fill(store: Namespace, rows: int) -> None:
    digests, random = _digests(rows), np.random.default_rng(1)
    for start in range(len(store), rows, _SHARD_ROWS):
        part = digests[start : start + _SHARD_ROWS]
        values = random.standard_normal((len(part), _DIM), np.float32)
        store.append([key_of(digest) for digest in part], values, seconds=1)
        store.flush()


def _written(rows: int, folder: Path, kind: str) -> dict[str, float]:
    frame = pd.DataFrame({"digest": _digests(rows), "path": "", "format": "PNG"})
    classes = np.arange(rows) % _CLASSES
    frame["class_name"], frame["class_index"] = classes.astype(str), classes.astype(np.int32)
    frame["split"] = np.where(np.arange(rows) % 7, "train", "val")
    source, path = _Source(_store(folder)), folder / f"{kind}.arrow"
    start = time.perf_counter()
    _WRITERS[kind](path, source, Dataset(frame, [str(index) for index in range(_CLASSES)], folder))
    return {"seconds": round(time.perf_counter() - start, 2), "megabytes": round(path.stat().st_size / 1e6, 1)}


def _read(rows: int, folder: Path, kind: str) -> dict[str, float]:
    start = time.perf_counter()
    features = read_features(
        folder / f"{kind}.arrow",
        find_rows=lambda name, *named: locate_rows(folder / "store" / name, None, *named, advice=""),
    )
    took = {"open": time.perf_counter() - start}
    orders = {"random": (np.random.default_rng(2).permutation(rows), 64), "ordered": (np.arange(rows), 1024)}
    for number in ("first", "second"):
        for name, (order, together) in orders.items():
            start = time.perf_counter()
            for first in range(0, rows, together):
                features.read(order[first : first + together])
            took[f"{number}_{name}"] = time.perf_counter() - start
    return {name: round(seconds, 3) for name, seconds in took.items()}


if __name__ == "__main__":
    main()
