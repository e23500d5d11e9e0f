"""A shipped file on a cluster: workers ask it about photos and answer with rows, which this process stores.

A row is some kilobytes, so that workers need not see the store. They get the file once.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, NotImplemented, RuntimeException

from regraft.cluster.connection import Cluster
from regraft.cluster.jobs import Seat, Work, work_on
from regraft.cluster.steps import NotInSight
from regraft.core.errors import InvalidData, printable
from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.images import Threads
from regraft.photos.in_sight import Fetched, InSight
from regraft.store.namespace import Namespace
from regraft.store.shards import Key, key_of

_FEW = 64  # photos that this process asks about while a cluster would be starting
_FLUSH_ROWS = 4096
# Of one photo, and no reason to leave the others: it was moved or replaced, or the engine fails on it.
OF_PHOTO = (InvalidData, OSError, ValueError, Fail, InvalidArgument, NotImplemented, RuntimeException)


@dataclass(frozen=True, slots=True)
class _Answered:
    """What a worker says of those photos of a part that it could be asked about."""

    keys: list[Key]
    rows: np.ndarray  # float32, (photos, numbers)
    photos: int  # of the part
    seconds: float
    fetched: Fetched


def answer_on_cluster(
    cluster: Cluster,
    classifier: OnnxClassifier,
    dataset: Dataset,
    stored: Namespace,
    on_progress: Callable[[int, int], None],
) -> None:
    """Have workers ask a file about photos that the store does not hold, unless they are few.

    Afterwards the store lacks the rows of photos that workers could not read or that the file failed on, and all of
    them where no worker sees their folder: whoever needs them asks in this process, and finds out why.

    Args:
        cluster: who works.
        classifier: the file; of one whose backbone is frozen the rows are what its first part says.
        dataset: the photos.
        stored: from `regraft.export.scoring.open_said`.
        on_progress: called with the number of photos done and to do.
    """
    photos = {key_of(photo.source): photo for photo in dataset.photos()}
    new = [photos[key] for key in stored.missing(photos)]
    if len(new) < _FEW:
        return
    job = Asking(classifier.contents, classifier.frozen_parts is not None, InSight.of(dataset, new))
    done, unwritten = 0, 0
    try:
        for part in work_on(cluster, job, new, store=stored.folder.parent, name=_name):
            if part.keys:
                stored.append(part.keys, part.rows, seconds=part.seconds)
            part.fetched.count(dataset.elsewhere)
            done, unwritten = done + part.photos, unwritten + len(part.keys)
            if unwritten >= _FLUSH_ROWS:
                stored.flush()
                unwritten = 0
            on_progress(done, len(new))
    except NotInSight:  # each worker was told about when it was refused
        cluster.tell(f"No worker of the cluster sees {dataset.folder}: this process runs the model.")
    finally:
        stored.flush()  # what was answered is not asked again


def _name(photo: Photo) -> str:
    return f"{printable(photo.path)} (SHA-256 {photo.digest[:12]})"


# In a worker from here on.


@dataclass(frozen=True, slots=True)
class Asking:
    """Ask a shipped file about photos."""

    contents: bytes  # of the file
    is_frozen: bool  # whether to run its first part alone
    photos: InSight

    def begin(self, seat: Seat) -> Work:
        """Load the file; RegraftError if the photos are not there."""
        dataset = self.photos.seen_from(seat)
        with tempfile.TemporaryDirectory(prefix="regraft-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(self.contents)
            classifier = OnnxClassifier(path)
        return partial(_ask, classifier.features if self.is_frozen else classifier.row, dataset, Threads(seat.threads))


def _ask(
    run: Callable[[np.ndarray], np.ndarray], dataset: Dataset, threads: Threads, photos: Sequence[Photo]
) -> _Answered:
    def row_of(photo: Photo) -> np.ndarray | None:
        try:
            with dataset.opened(photo) as rgb:
                return run(rgb)
        except OF_PHOTO:
            return None

    before, begun = Fetched.by(dataset.elsewhere), time.perf_counter()
    found = [(key_of(photo.source), row) for photo, row in zip(photos, threads.map(row_of, photos), strict=True)]
    answered = [(key, row) for key, row in found if row is not None]
    rows = np.stack([row for _, row in answered]) if answered else np.empty((0, 0), np.float32)
    seconds, fetched = time.perf_counter() - begun, Fetched.by(dataset.elsewhere) - before
    return _Answered([key for key, _ in answered], rows, len(photos), seconds, fetched)
