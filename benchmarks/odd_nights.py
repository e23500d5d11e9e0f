"""Odd nights, one after the other, on real photos: what the gate says of each, and what is in production afterwards.

    python -m benchmarks.odd_nights DIR

DIR holds labelled photos as <class>/... or {train,val,test}/<class>/.... Each night something is done to a copy of them
or to the project, `regraft retrain` runs without fine-tuning, and its verdict is printed; then it is undone. The model
of the first night is the only one that a person would want in production until the end.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.files import sha256_of
from regraft.photos.dataset import read_dataset
from tests.support.machine import describe_machine
from tests.support.pipeline import HEAD_ONLY, REGRAFT, Project, temporary_project, write_params

_RELABELLED, _SHUFFLED = 15, 0.3
_FIRST = "first.parquet"  # the data set of the first night


@dataclass(frozen=True, slots=True)
class Night:
    """What is odd, how it is done, and what must come of it."""

    what: str
    do: Callable[[Project], None]
    expected: tuple[str, ...]  # states that may follow
    may_change_production: bool = False


def _nothing(project: Project) -> None:
    """An ordinary night."""


def _photos(project: Project, class_name: str | None = None) -> list[Path]:
    photos = [path for path in sorted(project.raw.rglob("*")) if path.is_file()]
    return [path for path in photos if class_name in (None, path.parent.name)]


def _classes(project: Project) -> list[str]:
    return sorted({path.parent.name for path in _photos(project)})


def _first_test_photos(project: Project) -> pd.DataFrame:
    """The rows of the test split in the first night: the data set of an odd night is odd."""
    return read_dataset(project.root.parent / _FIRST, project.raw).of("test").rows


def _move(path: Path, class_name: str) -> None:
    """Put a photo into another class of its split."""
    target = path.parent.parent / class_name / f"moved-{path.name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


def _lose_a_class(project: Project) -> None:
    for path in _photos(project, _classes(project)[0]):
        path.unlink()


def _relabel_test_photos(project: Project) -> None:
    first, second = _classes(project)[:2]
    test = _first_test_photos(project)
    for path in test[test.class_name == first].path.head(_RELABELLED):
        _move(project.raw / path, second)
    _another_seed(project)  # else the model is the one in production, and there is nothing to decide


def _shuffle_a_class(project: Project) -> None:
    random, classes = np.random.default_rng(0), _classes(project)
    largest = max(classes, key=lambda name: len(_photos(project, name)))
    for path in _photos(project, largest):
        if random.random() < _SHUFFLED:
            _move(path, random.choice([name for name in classes if name != largest]))


def _add_a_class(project: Project) -> None:
    """The mirror images of a class, turned upside down, are a class that nobody knew."""
    from PIL import Image, ImageOps

    for path in _photos(project, _classes(project)[2]):
        target = path.parent.parent / "upside down" / path.with_suffix(".png").name
        target.parent.mkdir(exist_ok=True)
        with Image.open(path) as photo:
            ImageOps.flip(photo.convert("RGB")).save(target)


def _another_seed(project: Project, seed: int = 7) -> None:
    write_params(project.root / "params.yaml", [*HEAD_ONLY, f"seed={seed}", f"train_head.dropout=0.2{seed}"])


def _swap_production(project: Project) -> None:
    (project.root / "models" / "production" / "model.onnx").write_bytes(b"another file")


def _set_the_clock_back(project: Project) -> None:
    """As if the model in production had come from the future."""
    log = project.root / "models" / "production" / "log.jsonl"
    lines = log.read_text().splitlines()
    last = json.loads(lines[-1]) | {"at": "2099-01-01T00:00:00+00:00"}
    log.write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    _another_seed(project, seed=8)


def _lose_the_test_photos(project: Project) -> None:
    test = _first_test_photos(project)
    for path in test.path.head(len(test) - 20):
        (project.raw / path).unlink()


NIGHTS = [
    Night("the first model", _nothing, ("Promoted", "Promoted with warnings"), may_change_production=True),
    Night("nothing has changed", _nothing, ("Already in production",)),
    Night("the folder of a class is gone, as after a lost mount", _lose_a_class, ("Refused",)),
    Night(f"{_RELABELLED} test photos have another label", _relabel_test_photos, ("Undecided", "Refused")),
    Night(f"{_SHUFFLED:.0%} of the labels of the largest class are wrong", _shuffle_a_class, ("Refused", "Undecided")),
    Night("another seed and dropout", _another_seed, ("Undecided", "Promoted"), may_change_production=True),
    Night("the model in production was replaced by hand", _swap_production, ("Refused",)),
    Night("all but 20 test photos are gone", _lose_the_test_photos, ("Undecided", "Failed")),
    Night("the clock was set back", _set_the_clock_back, ("Undecided", "Promoted"), may_change_production=True),
    Night("a new class", _add_a_class, ("Promoted with warnings", "Undecided"), may_change_production=True),
]


def run_nights(photos: Path) -> list[dict[str, Any]]:
    """Return a row per night."""
    rows = []
    with temporary_project(HEAD_ONLY) as project:
        shutil.copytree(photos, project.raw, dirs_exist_ok=True)
        model = project.root / "models" / "production" / "model.onnx"
        for number, night in enumerate(NIGHTS, 1):
            before = sha256_of(model) if model.exists() else None
            night.do(project)
            output = _retrain(project)
            state, said = _verdict(project, output)
            if number == 1:
                shutil.copy(project.root / "build" / "dataset.parquet", project.root.parent / _FIRST)
            after = sha256_of(model) if model.exists() else None
            is_well = state in night.expected and (night.may_change_production or before == after or number == 7)
            rows.append({"night": number, "what": night.what, "state": state, "is_well": is_well, "said": said})
            print(f"\nNight {number}: {night.what}\n  {said}", flush=True)
            shutil.rmtree(project.raw)
            shutil.copytree(photos, project.raw)
            write_params(project.root / "params.yaml", HEAD_ONLY)
            if number == 7:
                print("  " + _call(project, "promote", "--rollback").strip())
    return rows


def _retrain(project: Project) -> str:
    return _call(project, "retrain")


def _call(project: Project, *arguments: str) -> str:
    ended = subprocess.run(
        [*REGRAFT, *arguments],
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.stdout


def _verdict(project: Project, output: str) -> tuple[str, str]:
    """The state and the sentence of a run, from its last line."""
    states = {state for night in NIGHTS for state in night.expected}
    for line in reversed(output.splitlines()):
        for state in sorted(states, key=len, reverse=True):
            if line.startswith(f"{state}:"):
                return state, line
    stopped = [line for line in output.splitlines() if "stopped:" in line or "Error" in line]
    return "Failed", (stopped or output.splitlines()[-3:])[-1]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.odd_nights", description="Odd nights on real photos.")
    parser.add_argument("photos", type=Path, help="labelled photos in folders")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    rows = run_nights(arguments.photos)
    print(f"\n{describe_machine()}")
    print(json.dumps(rows))
    sys.exit(not all(row["is_well"] for row in rows))


if __name__ == "__main__":
    main()
