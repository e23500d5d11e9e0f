"""Changes of production that tests make in processes of their own; a model is a text here."""

from pathlib import Path

import numpy as np
import pandas as pd

from regraft.core.files import sha256_of
from regraft.production.registry import Grounds, Production
from regraft.production.training_data import Reference


def write_candidate(folder: Path, contents: str) -> Path:
    """Write a new model beside models/production, read-only as DVC's outputs may be, and return its path."""
    path = folder.parent / f"{contents}.onnx"
    if not path.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents)
        path.chmod(0o444)
    return path


def data_of(name: str) -> Reference:
    """A reference of one photo of the given class."""
    facts = {"width": 8, "height": 6, "brightness": 0.5, "contrast": 0.2, "sharpness": 9.0, "entropy": 7.0}
    rows = pd.DataFrame([{"digest": "d", "label": name, "split": "train", **facts, "sampled": True}])
    return Reference(rows, np.ones((1, 4), np.float32), "a namespace")


def promote(folder: Path, contents: str, keep: int = 5) -> None:
    """Promote a model by hand, with its data."""
    path = write_candidate(folder, contents)
    Production(folder).promote(path, f"because of {contents}", keep=keep, reference=data_of(contents))


def promote_by_gate(folder: Path, contents: str) -> None:
    """Promote a model as the gate does after it has compared it with what is in production."""
    path, production = write_candidate(folder, contents), Production(folder)
    grounds = Grounds(sha256_of(path), production.digest)
    production.promote(path, f"because of {contents}", keep=5, grounds=grounds)


def roll_back(folder: Path) -> None:
    """Go back to the model before."""
    Production(folder).rollback(by=" by a test")


def change_for_ever(folder: Path, contents: str, count: int) -> None:
    """Promote and roll back in turns."""
    for _ in range(count):
        promote(folder, contents)
        roll_back(folder)
