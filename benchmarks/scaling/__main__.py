"""What a run costs as the photos grow: seconds and peak memory of every stage, at first, with 1 % new, nothing new.

    python -m benchmarks.scaling [DIR] [--photos N ...] [--rows N ...] [--set section.key=value ...]

`--photos` makes N photos of those in DIR (of tests/data/photos without it): crops, half of them mirrored, of at most
256 pixels, no two files the same. For each N a project of its own runs `dvc repro`, as users do, and then `regraft
retrain`, which has nothing left to do but the gate: at first, with 1 % new photos, and with nothing new. Without
`--set fine_tune.mode=always` the head alone is trained.

`--rows` has the tables of N photos without their pixels (`rows.py`), for numbers of photos that no machine
decodes in an hour; `--stages` takes some of the stages.

The last line is JSON. Memory is that of the whole
tree of processes (`watch.py`). The baseline is the first run.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.scaling.rows import STAGES, measure_rows
from benchmarks.scaling.watch import watched
from benchmarks.support.photos import REAL_PHOTOS, encode_photo, make_photos, usable_photos
from benchmarks.support.projects import HEAD_ONLY, REGRAFT, Project, describe_machine, temporary_project
from regraft.core.files import readable_bytes

Entry = dict[str, Any]  # kind, run, photos, new, parts by name, and of the last run of photos `bytes` by folder
_LONGEST = 256  # pixels of a photo's longer side
_SPARE_BYTES = 2 * 10**9  # for what does not grow with the photos
_BYTES_BESIDE_A_PHOTO = 20_000  # its features in the store, in build/ and in DVC's cache, and its rows in tables
_REFUSED = 2  # the flow's exit status when the gate refuses the new model; the run is complete


def measure_photos(sources: pd.DataFrame, count: int, settings: list[str]) -> list[Entry]:
    """Return what three runs took: at first with so many photos, with 1 % new ones, and with nothing new."""
    entries, new = [], max(1, count // 100)
    with temporary_project([*HEAD_ONLY, *settings]) as project:
        for run, numbers in (
            ("first", range(count)),
            ("one_percent_new", range(count, count + new)),
            ("nothing_new", range(0)),
        ):
            make_photos(sources, project.raw, numbers, longest=_LONGEST)
            photos = count if run == "first" else count + new
            entries.append(
                {"kind": "photos", "run": run, "photos": photos, "new": len(numbers), "parts": _parts(project)}
            )
            print(f"{photos} photos, {run.replace('_', ' ')}: {json.dumps(entries[-1]['parts'])}", file=sys.stderr)
        entries[-1]["bytes"] = {name: _bytes(project.root / name) for name in _FOLDERS}
        entries[-1]["bytes"]["build"] -= entries[-1]["bytes"]["build/store"]
    return entries


_FOLDERS = ("data/raw", "build/store", "build", ".dvc/cache")  # the third is what is beside the second


def _parts(project: Project) -> dict[str, dict[str, float]]:
    """What the stages took that `dvc repro` ran, the rest of it, and `regraft retrain` after it."""
    log = project.root.parent / "run.log"
    repro = watched([sys.executable, "-m", "dvc", "repro"], project.root, project.environment, log=log)
    gate = watched([*REGRAFT, "retrain"], project.root, project.environment, log=log, accepted=(0, _REFUSED)).whole
    parts = repro.stages | {"dvc repro beside them": repro.beside, "regraft retrain, gate": gate}
    return {name: took.as_json() for name, took in parts.items()}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _check_room(sources: pd.DataFrame, count: int) -> None:
    """End before hours of work if the disk cannot hold the photos, DVC's copy of them, and the store."""
    mean = statistics.mean(len(encode_photo(sources, number, longest=_LONGEST)) for number in range(32))
    needed = int(count * 1.01 * (2 * mean + _BYTES_BESIDE_A_PHOTO)) + _SPARE_BYTES
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        sys.exit(
            f"{count} photos need {readable_bytes(needed)} in {folder}, and {readable_bytes(free)} are free there. "
            f"Set TMPDIR to a folder on a larger disk, or measure fewer."
        )


def print_tables(entries: list[Entry]) -> None:
    """Print a table per kind and run: a line per part, and seconds and MB of each size."""
    for kind, run in dict.fromkeys((entry["kind"], entry["run"]) for entry in entries):
        some = [entry for entry in entries if (entry["kind"], entry["run"]) == (kind, run)]
        print(f"\n{kind}, {run.replace('_', ' ')}: seconds, seconds of CPU, peak MB")
        print(f"{'':24}" + "".join(f"{entry['photos']:>30,}" for entry in some))
        for part in dict.fromkeys(part for entry in some for part in entry["parts"]):
            print(f"{part:24}" + "".join(_cells(entry["parts"].get(part)) for entry in some))
        wholes = [sum(took["seconds"] for took in entry["parts"].values()) for entry in some]
        print(f"{'together':24}" + "".join(f"{whole:10.1f}{'':20}" for whole in wholes))


def _cells(took: dict[str, float] | None) -> str:
    if took is None:
        return f"{'-':>10}{'-':>10}{'-':>10}"
    return f"{took['seconds']:10.1f}{took['cpu_seconds']:10.1f}{took['peak_memory_mb']:10.0f}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Seconds and memory of every stage as the photos grow.")
    parser.add_argument("folder_of_photos", type=Path, nargs="?", default=REAL_PHOTOS, metavar="DIR")
    parser.add_argument("--photos", type=int, nargs="+", default=[], metavar="N", help="crops of the photos in DIR")
    parser.add_argument("--rows", type=int, nargs="+", default=[], metavar="N", help="rows without photos")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.KEY=VALUE", help="other settings")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES, help="of --rows")
    arguments = parser.parse_args()
    if not arguments.photos and not arguments.rows:
        arguments.photos = [1000, 4000]
    if not arguments.folder_of_photos.is_dir():
        sys.exit(f"there is no folder {arguments.folder_of_photos}")
    print(describe_machine(), flush=True)
    entries: list[Entry] = []
    if arguments.photos:
        sources = usable_photos(arguments.folder_of_photos)
        _check_room(sources, max(arguments.photos))
        for count in sorted(arguments.photos):
            entries += measure_photos(sources, count, arguments.set)
    for count in sorted(arguments.rows):
        with tempfile.TemporaryDirectory(prefix="regraft-rows-") as folder:
            entries += measure_rows(count, Path(folder), [*HEAD_ONLY, *arguments.set], arguments.stages)
    print_tables(entries)
    print(json.dumps(entries))


if __name__ == "__main__":
    main()
