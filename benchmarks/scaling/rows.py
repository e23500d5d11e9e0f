"""A million rows without a million photos: what tables cost, by the real stages, each a process of its own.

A photo is a file of about 1 kB, no two with the same bytes. What a decoder would say of it is drawn and lies in the
store beforehand, as in a clone whose photos another machine has decoded: hashes at random, one photo in fifty a
near-duplicate of the one before it. Its pooled features are drawn around the centre of its class and lie in the store
too. So nothing is decoded and no network runs: what is left is what grows with the number of rows.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.scaling.watch import watched_stage
from benchmarks.support.projects import ROOT, stages_folder, write_params
from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import Trunk
from regraft.core.params_file import load_params
from regraft.features.forward_passes import load_stored_trunk, open_feature_store
from regraft.photos.dataset import read_dataset
from regraft.photos.known import ContentFacts
from regraft.photos.views import Views, choose_views
from regraft.store.facts import Facts

STAGES = ("validate_data", "preprocess", "cache_features", "check_features", "train_head")
_OF_FEATURES = set(STAGES[2:])  # that read rows of the store
_CLASSES = 10
_TOPICS = 64  # directions that features vary in
_PART = 20_000  # photos at a time
_ROWS = 4096  # of a shard


@dataclass(slots=True)
class Rows:
    """A folder with so many rows in it."""

    root: Path
    photos: int = 0

    @classmethod
    def made(cls, folder: Path, settings: list[str]) -> "Rows":
        """Make one without photos in a folder that is empty."""
        root = folder / "project"
        (folder / "raw").mkdir(parents=True)
        stages_folder(root, folder / "raw", settings)
        write_params(root / "params.yaml", settings)
        return cls(root)

    def grow(self, count: int) -> None:
        """Make photos, and what is known of them, until there are so many."""
        params = load_params(self.root / "params.yaml")
        facts = Facts(self.root / params.paths.store, None, max_pixels=params.validate_data.max_pixels)
        picture = _picture()
        for label in range(_CLASSES):
            (self.root / "data" / "raw" / f"{label:03}").mkdir(exist_ok=True)
        for start in range(self.photos, count, _PART):
            numbers = range(start, min(start + _PART, count))
            contents = [_file(picture, number) for number in numbers]
            for number, content in zip(numbers, contents, strict=True):
                (self.root / "data" / "raw" / f"{number % _CLASSES:03}" / f"{number:08}.jpg").write_bytes(content)
            digests = [hashlib.sha256(content).hexdigest() for content in contents]
            facts.add(dict(zip(digests, _drawn_facts(numbers, len(contents[0])), strict=True)), {})
        self.photos = count

    def run(self, stages: Iterable[str]) -> dict[str, dict[str, float]]:
        """Run stages and return what each took; the store has all rows that they need."""
        took = {}
        for stage in stages:
            if stage in _OF_FEATURES:
                self._fill_store()
            watched = watched_stage(stage, self.root, root=ROOT)
            took[stage] = watched.as_json()
            print(f"  {stage}: {json.dumps(took[stage])}", flush=True)
        return took

    def _fill_store(self) -> None:
        """Draw the features of all photos of the data set that the store has none of."""
        params = load_params(self.root / "params.yaml")
        os.chdir(self.root)
        dataset = read_dataset(params.paths.dataset, params.paths.raw)
        trunk, views = _trunk_and_views(params)
        features = open_feature_store(params.paths.store, trunk).features
        keys = [views.key(source, 0) for source in dataset.sources()]
        missing = set(features.missing(keys, verify=False))
        places = [place for place, key in enumerate(keys) if key in missing]
        classes = dataset.rows.class_index.to_numpy()
        for start in range(0, len(places), _ROWS):
            part = places[start : start + _ROWS]
            values = _drawn_features(classes[part], trunk.feature_dim, seed=len(features) + start)
            features.append([keys[place] for place in part], values, seconds=0.004 * len(part))
            features.flush()


def measure_rows(count: int, folder: Path, settings: list[str], stages: Iterable[str] = STAGES) -> list[dict[str, Any]]:
    """Return what stages took at so many rows: at first, again with nothing new, and with 1 % more.

    Through DVC the second run would take nothing: it passes over a stage whose inputs are the same. Here it tells what
    the stage costs when something else has changed.
    """
    rows, entries = Rows.made(folder, settings), []
    for run, photos in (("first", count), ("nothing_new", count), ("one_percent_new", count + count // 100)):
        rows.grow(photos)
        print(f"{photos:,} rows, {run.replace('_', ' ')}", flush=True)
        entries.append({"kind": "rows", "run": run, "photos": photos, "new": 0, "parts": rows.run(stages)})
    return entries


def _trunk_and_views(params: Any) -> tuple[Trunk, Views]:
    backbone = choose_backbone(params.backbone)
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=params.cache_features.views)
    return load_stored_trunk(backbone, params.paths.store, shared=None), views


def _picture() -> bytes:
    """A JPEG file of about 1 kB."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).resize((48, 48)).save(file, "JPEG", quality=50)
    return file.getvalue()


def _file(picture: bytes, number: int) -> bytes:
    """The picture with its number as a comment."""
    text = f"{number:08}".encode()
    return picture[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + picture[2:]


def _drawn_facts(numbers: range, size: int) -> list[ContentFacts]:
    """What might be known of photos of these numbers."""
    random = np.random.default_rng([1, numbers.start])
    hashes = random.integers(0, 256, (len(numbers), 32), np.uint8)
    near = np.flatnonzero(random.random(len(numbers) - 1) < 0.02) + 1 if len(numbers) > 1 else []
    for place in near:  # four bits apart
        hashes[place] = hashes[place - 1]
        hashes[place, random.choice(32, 4, replace=False)] ^= 1
    figures = random.uniform([0.2, 0.1, 50, 5], [0.8, 0.3, 2000, 7.8], (len(numbers), 4)).tolist()
    shape = {"format": "JPEG", "width": 48, "height": 48, "mode": "RGB", "bit_depth": 8, "orientation": 1, "frames": 1}
    names = ("brightness", "contrast", "sharpness", "entropy")
    return [
        ContentFacts(**shape, **dict(zip(names, row, strict=True)), phash=phash.tobytes().hex(), bytes=size)
        for row, phash in zip(figures, hashes, strict=True)
    ]


def _drawn_features(classes: np.ndarray, dim: int, *, seed: int) -> np.ndarray:
    """Features around the centres of classes, never negative: float32, shape (len(classes), dim)."""
    fixed, random = np.random.default_rng(2), np.random.default_rng([3, seed])
    centres = fixed.standard_normal((_CLASSES, _TOPICS)).astype(np.float32)
    directions = fixed.standard_normal((_TOPICS, dim)).astype(np.float32) / np.float32(_TOPICS**0.5)
    topics = np.float32(0.6) * centres[classes] + random.standard_normal((len(classes), _TOPICS), np.float32)
    noise = np.float32(0.1) * random.standard_normal((len(classes), dim), np.float32)
    return np.maximum(topics @ directions + noise, 0)
