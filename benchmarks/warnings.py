"""Warnings: how often checks warn of healthy photos, and how often they find what is wrong.

    python -m benchmarks.warnings DIR [DIR ...] [--draws 5] [--work FOLDER] [--quick]

Each DIR is a folder of labelled photos that are taken for healthy. In a draw, 5 % of them at random are new since the
model in production, and the splits are drawn at random. Then faults are made: 100 photos join that are darkened to
half, blurred by 1 % of the longer side or cropped to 95 %; such copies stand in another split than their photos; one
photo is a black frame; a class is new; a class has vanished. The table has the share of draws in which a check warns,
of copies the share that is found as a leak; pairs are all leaks of a draw, real near-duplicates among them. FOLDER
keeps features between calls.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter

from regraft.config import Params
from regraft.features.drift import measure_drift
from regraft.features.neighbours import embed, find_leaks, measure_distances
from regraft.features.table import Features, read_features
from regraft.params_file import load_params
from regraft.photos.dataset import read_dataset
from regraft.photos.images import load_rgb
from regraft.photos.manifest import read_manifest
from regraft.validation.checks import validate
from tests.support.machine import describe_machine
from tests.support.pipeline import HEAD_ONLY, ROOT, run_stage, stages_folder

_SHARE_NEW, _FAULTY, _REFERENCE = 0.05, 100, 2000
_OF_LIMITS = {"large_enough_images", "usual_shape", "bright_enough", "not_too_bright", "enough_contrast"}
_OF_LIMITS |= {"sharp_enough", "enough_information"}
_OF_DRIFT = {"class_shares_as_before", "statistics_as_before", "no_new_classes", "no_vanished_classes"}


def _cropped(photo: Image.Image) -> Image.Image:
    width, height = photo.size
    box = (0.025 * width, 0.025 * height, 0.975 * width, 0.975 * height)
    return photo.resize(photo.size, Image.Resampling.LANCZOS, box=box)


_FAULTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "dark": lambda photo: ImageEnhance.Brightness(photo).enhance(0.5),
    "blur": lambda photo: photo.filter(ImageFilter.GaussianBlur(0.01 * max(photo.size))),
    "crop": _cropped,
}


@dataclass(frozen=True, slots=True)
class Photos:
    """The used photos of a folder and of its faulty copies: rows of the manifest, and features in the same order."""

    rows: pd.DataFrame
    features: np.ndarray  # float32, (n, dim)

    def part(self, chosen: np.ndarray) -> "Photos":
        """Some of them: a mask, or positions in order."""
        return Photos(self.rows[chosen] if chosen.dtype == bool else self.rows.iloc[chosen], self.features[chosen])


def _read(project: Path) -> Photos:
    _, manifest = read_manifest(project / "build" / "manifest.parquet")
    features = read_features(project / "build" / "features.arrow")
    dataset = read_dataset(project / "build" / "dataset.parquet", project / "data" / "raw").rows
    rows = manifest.set_index("path").loc[dataset.path].reset_index()
    return Photos(rows.assign(split=None), features.read(np.flatnonzero(features.views == 0)))


def _prepare(project: Path, raw: Path, settings: list[str]) -> Photos:
    """Run the first three stages, unless they were run before."""
    if not (project / "build" / "features.arrow").is_file():
        stages_folder(project, raw, [*HEAD_ONLY, *settings])
        for stage in ("validate_data", "preprocess", "cache_features"):
            run_stage(stage, project, log=project / "log")
    return _read(project)


def _write_faults(photos: Photos, raw: Path, folder: Path) -> None:
    """Write faulty copies as <fault>/<digest of the photo>.png."""
    for row in photos.rows.iloc[_spread(len(photos.rows), 2 * _FAULTY)].itertuples():
        photo = Image.fromarray(load_rgb(raw / str(row.path)))
        for fault, change in _FAULTS.items():
            (folder / fault).mkdir(parents=True, exist_ok=True)
            change(photo).save(folder / fault / f"{row.digest}.png")


def _spread(count: int, wanted: int) -> np.ndarray:
    """Positions of some of `count` things, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def measure(raw: Path, work: Path, draws: int) -> list[dict[str, Any]]:
    """Return one row per situation: the share of draws in which each check warns."""
    healthy = _prepare(work / raw.name, raw, [])
    faults = work / f"{raw.name}-faults"
    if not faults.is_dir():
        _write_faults(healthy, raw, faults)
    faulty = _prepare(work / f"{raw.name}-of-faults", faults, ["validate_data.max_hash_distance=null"])
    params, rows = load_params(ROOT / "params.yaml"), []
    for draw in range(draws):
        random = np.random.default_rng(draw)
        is_new = random.random(len(healthy.rows)) < _SHARE_NEW
        before, new = healthy.part(~is_new), healthy.part(is_new)
        rows.append({"situation": "healthy", **_warnings(params, before, new), **_leaks(params, healthy, random)})
        for fault in _FAULTS:
            of_fault = faulty.part((faulty.rows.label == fault).to_numpy())
            chosen = of_fault.part(random.permutation(len(of_fault.rows))[:_FAULTY])
            rows.append({"situation": f"new photos, {fault}", **_faulty_batch(params, healthy, chosen)})
            rows.append({"situation": f"a copy, {fault}", **_copies(params, healthy, of_fault, random)})
        rows += _of_classes(params, healthy, random)
        black = new.rows.head(1).assign(
            brightness=0.004, contrast=0.002, sharpness=0.5, entropy=0.3, digest="0" * 64, path="black.png"
        )
        report = validate("classes", pd.concat([healthy.rows, black]), params.validate_data)
        named = [entry for entry in report["expectations"] if entry["name"] in _OF_LIMITS]
        rows.append({"situation": "a black frame", "limits": any("black.png" in entry["paths"] for entry in named)})
    table = pd.DataFrame(rows).groupby("situation", sort=False).mean(numeric_only=False).astype(float).round(3)
    return [{"photos": raw.name, **row} for row in table.reset_index().to_dict("records")]


def _names(params: Params, before: pd.DataFrame, now: pd.DataFrame) -> set[str]:
    """The expectations that are violated."""
    report = validate("classes", now, params.validate_data, former=before)
    return {entry["name"] for entry in report["expectations"] if not entry["success"]}


def _warnings(params: Params, before: Photos, new: Photos) -> dict[str, Any]:
    """What the checks say of photos that joined."""
    found = _names(params, before.rows, pd.concat([before.rows, new.rows]))
    reference = before.features[_spread(len(before.features), _REFERENCE)]
    drift = measure_drift(reference, new.features, params.check_features.drift.significance)
    return {
        "limits": bool(found & _OF_LIMITS),
        "figures": bool(found & _OF_DRIFT),
        "features": drift is not None and drift.is_drift,
    }


def _faulty_batch(params: Params, healthy: Photos, faulty: Photos) -> dict[str, Any]:
    """Faulty photos join the healthy ones, without those that they were made of."""
    origin = faulty.rows.path.map(lambda path: Path(path).stem)
    labels = healthy.rows.drop_duplicates("digest").set_index("digest").label
    joined = Photos(faulty.rows.assign(label=labels.loc[origin].to_numpy()), faulty.features)
    return _warnings(params, healthy.part(~healthy.rows.digest.isin(set(origin)).to_numpy()), joined)


def _of_classes(params: Params, healthy: Photos, random: np.random.Generator) -> list[dict[str, Any]]:
    one = (healthy.rows.label == random.choice(healthy.rows.label.unique())).to_numpy()
    new = healthy.part(np.flatnonzero(one)[:_FAULTY])
    vanished = _names(params, healthy.rows, healthy.rows[~one])
    return [
        {"situation": "a new class", **_warnings(params, healthy.part(~one), new)},
        {"situation": "a class vanished", "figures": bool(vanished & _OF_DRIFT)},
    ]


def _leaks(params: Params, photos: Photos, random: np.random.Generator) -> dict[str, Any]:
    splits = random.choice(["train", "val", "test"], len(photos.rows), p=[0.7, 0.15, 0.15])
    pairs = len(_found(params, photos.features, splits))
    return {"leaks": pairs > 0, "pairs": pairs}


def _copies(params: Params, healthy: Photos, faulty: Photos, random: np.random.Generator) -> dict[str, Any]:
    """The share of copies in test that are found beside their photos in train."""
    copies = faulty.part(random.permutation(len(faulty.rows))[: _FAULTY // 2])
    position = {digest: number for number, digest in enumerate(healthy.rows.digest)}
    origins = [position[Path(path).stem] for path in copies.rows.path]
    splits = np.array(["train"] * len(healthy.rows) + ["test"] * len(origins))
    found = _found(params, np.concatenate([healthy.features, copies.features]), splits)
    pairs = {(one, other) for one, other, _ in found}
    hits = [(len(healthy.rows) + number, origin) in pairs for number, origin in enumerate(origins)]
    return {"leaks": float(np.mean(hits))}


def _found(params: Params, points: np.ndarray, splits: np.ndarray) -> list[tuple[int, int, float]]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(np.ascontiguousarray(points, np.float32).tobytes())
        file.flush()
        with Path(file.name).open("rb", buffering=0) as opened:
            count, dim = points.shape
            features = Features(
                digests=[str(number) for number in range(count)],
                views=np.zeros(count, np.int16),
                splits=splits,
                class_indices=np.zeros(count, np.int32),
                class_names=["any"],
                namespace="",
                dim=dim,
                file=opened,
                offsets=np.arange(count) * dim * 4,
            )
            embeddings, leaks = embed(features), params.check_features.leaks
            return find_leaks(
                embeddings,
                measure_distances(embeddings),
                min_similarity=leaks.min_similarity,
                max_distance=leaks.max_distance,
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warnings", description="How often checks warn of healthy photos, and find faults."
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="labelled photos, as for data/raw")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keeps features between calls; a temporary folder without it")
    parser.add_argument("--quick", action="store_true", help="one draw")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regraft-warnings-") as temporary:
        work, draws = arguments.work or Path(temporary), 1 if arguments.quick else arguments.draws
        results = [row for folder in arguments.folders for row in measure(folder, work, draws)]
    print(describe_machine())
    print(f"{draws} draw(s); the share of them in which a check warns")
    print(pd.DataFrame(results).to_string(index=False, na_rep=""))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
