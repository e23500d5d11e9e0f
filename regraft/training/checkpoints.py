"""Where a training had got to, on the disk: after a kill at any moment it goes on from there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.errors import Damaged
from regraft.core.files import fingerprint, writing
from regraft.core.sealed import read_arrays, write_arrays


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file of one training; open it with `open_checkpoint`."""

    path: Path

    def read(self) -> dict[str, np.ndarray] | None:
        """Return the arrays that were written last, or None if there are none or the file is damaged."""
        try:
            return read_arrays(self.path)
        except (FileNotFoundError, Damaged):
            return None

    def write(self, arrays: dict[str, np.ndarray]) -> None:
        """Replace the file whole."""
        with writing(self.path.parent, sum(array.nbytes for array in arrays.values())):
            write_arrays(self.path, arrays)


def open_checkpoint(folder: Path, facts: Any) -> Checkpoint:
    """Return the checkpoint of the training that `facts` determine.

    Args:
        folder: of checkpoints and nothing else.
        facts: JSON-able; whatever can change the training must be in it, so that no other one is ever gone on with.
    """
    return Checkpoint(folder / f"{fingerprint(facts)[:16]}.npz")
