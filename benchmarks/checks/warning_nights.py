"""Nights for `benchmarks.checks.warnings`: photos in production, photos that join, and what the checks say of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.support.projects import HEAD_ONLY, features_in, run_stage, stages_folder
from regraft.core.config import Params
from regraft.features.checks import DRIFT_SIGNIFICANCE
from regraft.features.drift import Sample, measure_drift
from regraft.photos.dataset import read_dataset
from regraft.photos.images import load_rgb
from regraft.photos.manifest import read_manifest
from regraft.validation.drift import drift_tables

REFERENCE = 2000  # photos whose features are kept beside a model
FAULTY = 200  # photos of which faulty copies are made


def cropped(photo: Image.Image) -> Image.Image:
    """Return the photo without 2.5 % at each side, in its own size."""
    width, height = photo.size
    box = (0.025 * width, 0.025 * height, 0.975 * width, 0.975 * height)
    return photo.resize(photo.size, Image.Resampling.LANCZOS, box=box)


FAULTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "dark": lambda photo: ImageEnhance.Brightness(photo).enhance(0.5),
    "blur": lambda photo: photo.filter(ImageFilter.GaussianBlur(0.01 * max(photo.size))),
    "crop": cropped,
}


@dataclass(frozen=True, slots=True)
class Photos:
    """Used photos: rows of the manifest, and features in the same order."""

    rows: pd.DataFrame
    features: np.ndarray  # float32, (n, dim)

    def part(self, chosen: np.ndarray) -> "Photos":
        """Some of them: a mask, or positions in order."""
        return Photos(self.rows[chosen] if chosen.dtype == bool else self.rows.iloc[chosen], self.features[chosen])

    def sample(self) -> Sample:
        """One photo per group, at most as many as are kept beside a model."""
        each = np.flatnonzero(~self.rows.group.duplicated().to_numpy())
        some = self.part(each[spread(len(each), REFERENCE)])
        return Sample(some.features, some.rows.label.to_numpy(str))

    @property
    def labels(self) -> np.ndarray:
        """The class of each."""
        return self.rows.label.to_numpy(str)


@dataclass(frozen=True, slots=True)
class Night:
    """What the model in production was trained on, and what is new since."""

    before: Photos
    new: Photos


def prepare(project: Path, raw: Path, settings: list[str]) -> Photos:
    """Run the first three stages on a folder, unless they were run before, and return its photos."""
    build = project / "build"
    if not (build / "features.arrow").is_file():
        stages_folder(project, raw, [*HEAD_ONLY, *settings])
        for stage in ("validate_data", "preprocess", "cache_features"):
            run_stage(stage, project, log=project / "log")
    _, manifest = read_manifest(build / "manifest.parquet")
    dataset = read_dataset(build / "dataset.parquet", project / "data" / "raw").rows
    rows = manifest.set_index("path").loc[dataset.path].reset_index()
    with features_in(project) as features:
        return Photos(rows.assign(split=None), features.read(np.flatnonzero(features.views == 0)))


def write_faults(photos: Photos, raw: Path, folder: Path) -> None:
    """Write faulty copies as <fault>/<digest of the photo>.png."""
    for row in photos.rows.iloc[spread(len(photos.rows), FAULTY)].itertuples():
        photo = Image.fromarray(load_rgb(raw / str(row.path)))
        for fault, change in FAULTS.items():
            (folder / fault).mkdir(parents=True, exist_ok=True)
            change(photo).save(folder / fault / f"{row.digest}.png")


def with_labels(faulty: Photos, healthy: Photos) -> Photos:
    """The faulty copies with the labels of their photos, and `origin`, the digest of that photo."""
    origin = faulty.rows.path.map(lambda path: Path(path).stem)
    labels = healthy.rows.drop_duplicates("digest").set_index("digest").label
    rows = faulty.rows.assign(fault=faulty.rows.label, origin=origin, label=labels.loc[origin].to_numpy())
    return Photos(rows, faulty.features)


def spread(count: int, wanted: int) -> np.ndarray:
    """Positions of some of `count` things, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def whole_groups(photos: Photos, share: float, random: np.random.Generator) -> Photos:
    """About this share of the photos, drawn by groups, in random order of the groups."""
    groups = pd.factorize(photos.rows.group)[0]
    order = random.permutation(groups.max() + 1)[groups]
    places = np.argsort(order, kind="stable")
    return photos.part(places[: round(share * len(places))])


def healthy_night(photos: Photos, share_new: float) -> Night:
    """The last photos of a random order are new; nothing has changed."""
    new = max(1, round(share_new * len(photos.rows)))
    known = set(photos.rows.group[:-new])
    is_new = np.array([group not in known for group in photos.rows.group])
    return Night(photos.part(~is_new), photos.part(is_new))


def together(one: Photos, other: Photos) -> Photos:
    """Both, with the columns that both have."""
    columns = one.rows.columns.intersection(other.rows.columns)
    return Photos(pd.concat([one.rows[columns], other.rows[columns]]), np.concatenate([one.features, other.features]))


def alarms(params: Params, night: Night, anchor: Photos | None = None) -> dict[str, bool]:
    """Which checks of drift warn, by today's rules; `mix` is only a note.

    Args:
        params: the project's own.
        night: what is compared.
        anchor: what the anchor was trained on, if it is another one.
    """
    now = pd.concat([night.before.rows, night.new.rows])
    references = {"production": night.before} | ({"anchor": anchor} if anchor else {})
    table = drift_tables({name: photos.rows for name, photos in references.items()}, now)
    moved = table[table.psi > table.limit]
    is_note = (moved.quantity == "class shares") & (moved.photos == "joined")
    chance, found = DRIFT_SIGNIFICANCE / len(references), {}
    for name, photos in references.items():
        is_known = night.before.rows.group.isin(set(photos.rows.group)).to_numpy()
        since = night.before.part(~is_known)
        new = together(since, night.new) if len(since.rows) else night.new
        drift = measure_drift(photos.sample(), new.sample(), chance)
        found[name] = bool(drift and drift.is_drift)
    return {
        "figures": bool((~is_note).any()),
        "features": found["production"],
        "of anchor": bool((moved[~is_note].against == "anchor").any()) or found.get("anchor", False),
        "classes": bool(set(now.label) != set(night.before.labels)),
        "mix": bool(is_note.any()),
    }
