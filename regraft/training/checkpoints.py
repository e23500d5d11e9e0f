"""Where a training had got to, on the disk: after a kill at any moment it goes on from there."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.files import fingerprint, replacing, writing


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file of one training; open it with `open_checkpoint`."""

    path: Path

    def read(self) -> dict[str, np.ndarray] | None:
        """Return the arrays that were written last, or None if there are none or the file is damaged."""
        try:
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}  # the zip format holds a checksum of each
        except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, arrays: dict[str, np.ndarray]) -> None:
        """Replace the file whole."""
        with (
            writing(self.path.parent, sum(array.nbytes for array in arrays.values())),
            replacing(self.path) as temporary,
        ):
            np.savez(temporary, allow_pickle=False, **arrays)


def open_checkpoint(folder: Path, facts: Any) -> Checkpoint:
    """Return the checkpoint of the training that `facts` determine.

    Args:
        folder: of checkpoints and nothing else.
        facts: JSON-able; whatever can change the training must be in it, so that no other one is ever gone on with.
    """
    return Checkpoint(folder / f"{fingerprint(facts)[:16]}.npz")
