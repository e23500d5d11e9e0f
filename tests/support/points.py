"""Features made up for tests: classes that are clouds of points, written to a file as the real ones are."""

from pathlib import Path

import numpy as np

from regraft.features.table import Features, FileRows, OpenFile

DIM = 48
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def clouds(seed: int, images: int = 300, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return features of classes that lie apart, not negative like those of a ReLU network, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    centres = np.random.default_rng(0).uniform(0, 2, (classes, DIM))
    return np.maximum(centres[labels] + random.normal(0, 0.5, (images, DIM)), 0).astype(np.float32), labels


def splits_of(images: int) -> np.ndarray:
    """Return a split for each image, the same ones every time."""
    return np.random.default_rng(1).choice(list(SHARES), images, p=list(SHARES.values()))


def write_points(path: Path, points: np.ndarray, labels: np.ndarray, splits: np.ndarray | None = None) -> Features:
    """Return made-up features as they come from a file, with an augmented view of each image that must not count."""
    images, views = len(points), 2
    rows = np.concatenate([points, np.ones_like(points)]).astype(np.float32)
    path.write_bytes(rows.tobytes())
    return Features(
        digests=[f"{number:064x}" for number in range(images)] * views,
        views=np.repeat(np.arange(views), images).astype(np.int16),
        splits=np.tile(splits_of(images) if splits is None else splits, views),
        class_indices=np.tile(labels, views).astype(np.int32),
        class_names=[f"class {index}" for index in range(int(labels.max()) + 1)],
        namespace="made up",
        dim=points.shape[1],
        rows=FileRows(OpenFile(path), np.arange(len(rows)) * points.shape[1] * rows.itemsize, points.shape[1]),
    )
