"""Hostile files by the thousand through the first three stages, with 4 GB of memory: is every promise kept?

    python -m tests.stress.fuzz [DIR] [--files 20000] [--seed 0]

DIR holds labelled photos; without it, those of tests/data. Parts of them are written in all formats that are read, HEIC
among them (one file of tests/data, since nothing here can write it), in all kinds of pixels, from 1 to 12,000 pixels a
side: many small, few large. Five of six are then damaged: bits flipped, bytes overwritten, parts cut out, doubled or
taken from another file, numbers in the header replaced, the end cut off; one of ten has the name of another format.
Further files are in formats that Pillow writes and nobody reads here. The first ones are bombs: four PNG of 119
megapixels and 231 kB, an icon, a TIFF of one tile, a PNG with millions of numbers in its EXIF data.

`validate_data`, `preprocess` and `cache_features` (a small backbone with random weights) run over all of them as
commands, below a limit on memory: a cgroup around the run and its inspectors where one can be made, else RLIMIT_AS on
each process; the output says which. Exit status 1 if a promise is broken: a stage ended or hung, a file has no verdict
or no reason, a good one is refused, one in a foreign format is not quarantined, an accepted one cannot be decoded, or
memory went above the limit.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.params_file import load_params
from regraft.features.table import read_features
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.images import Threads, load_rgb
from regraft.photos.manifest import read_manifest
from tests.support.hostile_files import choose_files
from tests.support.limited import Took, limit_of, run_limited
from tests.support.machine import describe_machine
from tests.support.photos import REAL_PHOTOS
from tests.support.pipeline import HEAD_ONLY, ROOT, stages_folder

STAGES = ("validate_data", "preprocess", "cache_features")
LIMIT = 4 * 10**9  # bytes
_SETTINGS = [
    *HEAD_ONLY,
    "backbone.weights=null",
    "backbone.image_size=64",
    # Most files are broken here, and many small pictures are equal or nearly so.
    "expectations.readable_images.severity=info",
    "validate_data.max_hash_distance=null",
    "validate_data.on_label_conflict=keep",
]
_CLASSES = 10
_NO_IMAGES = {"pdf"}  # of what Pillow writes: documents
Command = Callable[[str], list[str]]


def run_module(stage: str) -> list[str]:
    """Return the command of a stage."""
    return [sys.executable, "-m", f"tasks.{stage}"]


def measure(photos: Path, *, files: int, seed: int, command: Command = run_module) -> dict[str, Any]:
    """Write the files, run the stages; `problems` must stay empty."""
    with tempfile.TemporaryDirectory(prefix="regraft-fuzz-") as temporary:
        raw = Path(temporary, "raw")
        promised = _write(raw, photos, files, np.random.default_rng(seed))
        project = stages_folder(Path(temporary, "project"), raw, _SETTINGS)
        took: dict[str, Took] = {}
        with limit_of(LIMIT) as (kind, before):
            for stage in STAGES:
                took[stage] = run_limited(command(stage), project, before=before, patience=600 + files / 2)
                if took[stage].status != 0:
                    break
        problems = [problem for stage, each in took.items() for problem in _broken_by_the_run(stage, each)]
        found: dict[str, Any] = {}
        if took["validate_data"].status == 0:
            manifest = read_manifest(project / "build" / "manifest.parquet")[1]
            found = _summary(manifest)
            problems += [*_broken_verdicts(manifest, promised)]
        if (project / "build" / "dataset.parquet").exists():
            problems += [*_broken_acceptance(project, raw)]
        return {"files": files, "limit": kind, **found, "problems": problems} | {
            f"{name} of {stage}": value
            for stage, each in took.items()
            for name, value in (
                ("seconds", round(each.seconds)),
                ("MB of the run", each.run_bytes // 10**6),
                ("MB of an inspector", each.inspector_bytes // 10**6),
                ("MB together", each.together_bytes // 10**6),
            )
        }


def _write(raw: Path, photos: Path, files: int, random: np.random.Generator) -> dict[str, str]:
    """Write the files into class folders; return the verdict that is promised on some, by path."""
    most = load_params(ROOT / "params.yaml").validate_data.max_pixels
    promised = {}
    for number, (suffix, contents, verdict) in enumerate(choose_files(photos, files, most, random)):
        path = f"class-{number % _CLASSES}/{number:06}.{suffix}"
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        (raw / path).write_bytes(contents)
        if verdict:
            promised[path] = verdict
    return promised


def _broken_by_the_run(stage: str, took: Took) -> Iterator[str]:
    if took.status is None:
        yield f"{stage} hung: it had not ended after {took.seconds:.0f} s"
    elif took.status:
        yield f"{stage} ended with status {took.status}: {' '.join(took.said.split())[-600:]}"
    if took.together_bytes > LIMIT:
        yield f"{stage} and its inspectors took {took.together_bytes} bytes, above {LIMIT}"


def _broken_verdicts(manifest: pd.DataFrame, promised: dict[str, str]) -> Iterator[str]:
    """What is wrong with the verdicts as such."""
    rows = manifest.set_index("path")
    without_reason = rows[(rows.verdict != "use") & rows.reason.isna()]
    yield from (f"{path} is refused without a reason" for path in without_reason.index)
    for path, verdict in promised.items():
        if path not in rows.index:
            yield f"{path} has no verdict"
        elif rows.verdict[path] != verdict and path.rpartition(".")[2] not in _NO_IMAGES:
            yield f"{path} is to have the verdict {verdict}, and has {rows.verdict[path]}: {rows.reason[path]}"


def _broken_acceptance(project: Path, raw: Path) -> Iterator[str]:
    """Accepted files without features, and which of them cannot be decoded."""
    dataset = read_dataset(project / "build" / "dataset.parquet", raw)
    try:
        computed = set(read_features(project / "build" / "features.arrow").digests)
    except FileNotFoundError:
        computed = set()
    missing = dataset.with_rows(dataset.rows[~dataset.rows.digest.isin(computed)])
    if len(missing):
        yield f"{len(missing)} accepted files have no features"
        yield from list(filter(None, Threads(0).map(lambda path: _problem(missing, path), missing.rows.path)))[:20]


def _problem(dataset: Dataset, path: str) -> str | None:
    """What goes wrong when an accepted file is read as in training."""
    try:
        load_rgb(dataset.folder / path)
    except Exception as error:  # whatever it is, a run has ended with it
        return f"{path} was accepted: {type(error).__name__}: {error}"
    return None


def _summary(manifest: pd.DataFrame) -> dict[str, Any]:
    reasons = manifest.reason.fillna("")
    return {
        "verdicts": manifest.verdict.value_counts().to_dict(),
        "accepted": manifest[manifest.verdict == "use"].format.value_counts().to_dict(),
        "largest accepted": int((manifest.width * manifest.height)[manifest.verdict == "use"].max()),
        "crashes": int(reasons.str.contains("crashed on it").sum()),
        "too slow": int(reasons.str.contains("takes longer than").sum()),
        "too much memory": int(reasons.str.contains("more memory|of memory").sum()),
        "reasons": Counter(reason.split(";")[0][:60] for reason in reasons if reason).most_common(12),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.fuzz", description="The first stages on hostile files."
    )
    parser.add_argument("photos", type=Path, nargs="?", default=REAL_PHOTOS, help="a folder of labelled photos")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    result = measure(arguments.photos, files=arguments.files, seed=arguments.seed)
    print(describe_machine())
    for name, value in result.items():
        if name != "problems":
            print(f"{name}: {value}")
    print(json.dumps(result))
    if result["problems"]:
        sys.exit(f"{len(result['problems'])} promise(s) broken: " + "\n".join(result["problems"][:50]))


if __name__ == "__main__":
    main()
