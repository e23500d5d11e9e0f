"""Comparisons of models that are made up: a classifier is a table of its predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.config import Promote
from regraft.core.params_file import load_params
from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.production.gate.comparison import PairedComparison
from regraft.production.gate.judge import Former, Gate
from regraft.production.training_data import Reference
from tests.support.pipeline import ROOT

CLASSES = ["cup", "hat", "shoe"]


def settings(**changed: Any) -> Promote:
    """The defaults of section `promote`, with some settings changed."""
    promote = load_params(ROOT / "params.yaml").promote
    return Promote.model_validate(promote.model_dump() | changed)


def comparison_of(n: int, b: int, c: int, *, classes: int = 4, loss: float = 0.0) -> PairedComparison:
    """A comparison with these counts, spread evenly over the classes; `loss` is added to each log loss of the newer."""
    older, newer = np.ones(n, bool), np.ones(n, bool)
    newer[:b] = False
    older[b : b + c] = False
    random = np.random.default_rng(0)
    return PairedComparison(np.arange(n) % classes, older, newer, loss + random.normal(0, 0.1, n).round(3))


def digest_of(number: int) -> str:
    """A SHA-256 as good as any."""
    return f"{number:064x}"


@dataclass
class Answering(OnnxClassifier):
    """A model that names these classes."""

    named: dict[str, str]  # by digest of the photo
    class_names: list[str] = field(default_factory=lambda: list(CLASSES))
    digest: str = "a" * 64
    sure: float = 0.9
    metadata: dict[str, str] = field(default_factory=dict)

    def says(self, photos: Dataset) -> np.ndarray:
        """Return how sure it is for the class that it names, and the rest for the others."""
        names = [self.named[digest] for digest in photos.rows.digest]
        rest = (1 - self.sure) / (len(self.class_names) - 1)
        return np.array(
            [[self.sure if name == each else rest for each in self.class_names] for name in names], np.float32
        )


def dataset_of(labels: Sequence[str], splits: Sequence[str] | None = None, classes: Sequence[str] = CLASSES) -> Dataset:
    """Photos with these labels, numbered; all in test unless splits are given."""
    rows = pd.DataFrame(
        {
            "digest": [digest_of(number) for number in range(len(labels))],
            "path": [f"{number}.jpg" for number in range(len(labels))],
            "class_name": labels,
            "class_index": [list(classes).index(label) for label in labels],
            "split": splits or ["test"] * len(labels),
            "format": "JPEG",
        }
    ).astype(COLUMNS)
    return Dataset(rows, list(classes), Path())


def reference_of(rows: Sequence[tuple[int, str, str]]) -> Reference:
    """What a model was trained on: number of the photo, label, split."""
    facts = {"width": 8, "height": 6, "brightness": 0.5, "contrast": 0.2, "sharpness": 9.0, "entropy": 7.0}
    table = [{"digest": digest_of(n), "label": label, "split": split, **facts} for n, label, split in rows]
    frame = pd.DataFrame(table, columns=["digest", "label", "split", *facts]).assign(sampled=False)
    return Reference(frame, np.zeros((0, 4), np.float32), "a namespace")


def groups_of(groups: dict[int, int]) -> pd.DataFrame:
    """The manifest's groups: by number of a photo, that of the photo that names its group."""
    return pd.DataFrame({"digest": map(digest_of, groups), "group": [digest_of(each) for each in groups.values()]})


def gate_of(challenger: Answering, dataset: Dataset, groups: dict[int, int] | None = None, **changed: Any) -> Gate:
    """The gate on a made-up model."""
    return Gate(
        challenger,
        Path(__file__),
        dataset,
        groups_of(groups or {}),
        settings(**changed),
        ask,
    )


def ask(classifier: OnnxClassifier, photos: Dataset) -> np.ndarray:
    """What a made-up model says of photos."""
    assert isinstance(classifier, Answering)
    return classifier.says(photos)


def former_of(model: Answering, rows: Sequence[tuple[int, str, str]] | None = ()) -> Former:
    """A model of before, and what it was trained on; None: not known."""
    return Former(model, None if rows is None else reference_of(rows))
