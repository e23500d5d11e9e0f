"""The photos that an int8 file is made and judged on, prepared once: every rung of the ladder sees the same pixels."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
import onnx

from regraft.core.files import writing
from regraft.export.classifier import OnnxClassifier
from regraft.export.two_parts import as_bytes
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.images import Threads
from regraft.photos.preparation import Preparation
from regraft.serving.shipped_model import start_session


@dataclass(frozen=True)
class Prepared:
    """Photos as the network is given them, in a file without a name: many would fill the memory."""

    file: BinaryIO
    side: int
    rows: Sequence[int]  # which of the photos in the file, in which order

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a photo, uint8, shape (side, side, 3); several threads may ask."""
        size = self.side**2 * 3
        pixels = os.pread(self.file.fileno(), size, self.rows[index] * size)
        return np.frombuffer(pixels, np.uint8).reshape(self.side, self.side, 3)

    def part(self, rows: Sequence[int]) -> "Prepared":
        """Return some of them."""
        return replace(self, rows=[self.rows[row] for row in rows])


@dataclass(frozen=True)
class Material:
    """What an int8 file is made and judged on."""

    classifier: OnnxClassifier  # the float32 file
    judged: Prepared  # val photos that training has not seen, one per group
    calibrating: Prepared  # training photos
    class_indices: np.ndarray  # of the judged ones
    threads: Threads  # that run

    def rows_of(self, graph: onnx.ModelProto, photos: Prepared) -> np.ndarray:
        """Return what a graph from prepared pixels to the outputs of the file says of photos.

        Returns:
            float32, shape (n, row_length): the probabilities, and the novelty if the file has it.
        """
        session = start_session(as_bytes(graph))
        (given,) = session.get_inputs()
        names = ["probabilities", "novelty"] if self.classifier.has_novelty else ["probabilities"]

        def row(index: int) -> np.ndarray:
            return np.hstack([np.ravel(found) for found in session.run(names, {given.name: photos[index][None]})])

        found = []
        for number, each in enumerate(self.threads.map(row, range(len(photos))), 1):
            found.append(each)
            self.threads.on_progress(number, len(photos))
        return np.stack(found)

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Return the probabilities of what `rows_of` returned, shape (n, num_classes)."""
        return rows[:, : len(self.classifier.class_names)]


@contextmanager
def material_of(
    classifier: OnnxClassifier, judged: Dataset, calibrating: Dataset, threads: Threads, *, scratch: Path
) -> Iterator[Material]:
    """Yield photos that are prepared, and what is needed to run them.

    Args:
        classifier: the float32 file.
        judged: val photos that training has not seen, one per group of near-duplicates.
        calibrating: training photos, which say how large activations get and judge nothing.
        threads: that decode and run.
        scratch: a folder with room for the pixels.
    """
    preparation, count = classifier.preparation, len(judged) + len(calibrating)
    with writing(scratch, count * preparation.image_size**2 * 3), TemporaryFile(dir=scratch) as file:
        _write(file, judged, preparation, threads)
        _write(file, calibrating, preparation, threads)
        yield Material(
            classifier,
            judged=Prepared(file, preparation.image_size, range(len(judged))),
            calibrating=Prepared(file, preparation.image_size, range(len(judged), count)),
            class_indices=judged.rows.class_index.to_numpy(),
            threads=threads,
        )


def _write(file: BinaryIO, dataset: Dataset, preparation: Preparation, threads: Threads) -> None:
    def prepare(photo: Photo) -> np.ndarray:
        with dataset.opened(photo) as rgb:
            return preparation(rgb)

    photos = dataset.photos()
    for number, pixels in enumerate(threads.map(prepare, photos), 1):
        file.write(pixels.tobytes())
        threads.on_progress(number, len(photos))
    file.flush()
