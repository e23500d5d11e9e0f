"""The shipped file in use: raw photos in, probabilities out, with ONNX Runtime and what the file says of itself."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import PIL
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf

from regraft.errors import RegraftError
from regraft.photos.dataset import Dataset, read_photo
from regraft.photos.images import in_threads
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import Key, key_of


class OnnxClassifier:
    """A model.onnx that Regraft exported."""

    def __init__(self, path: Path) -> None:
        """Load a file.

        Args:
            path: of model.onnx.

        Raises:
            RegraftError: there is no such file, or it is not a model that Regraft exported.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = (
            1  # photos are taken in parallel instead, each by one thread: see regraft/backbones/runners.py
        )
        try:
            contents = path.read_bytes()
            self.digest = hashlib.sha256(contents).hexdigest()
            self._session = onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.class_names: list[str] = json.loads(metadata["class_names"])
        except FileNotFoundError:
            raise RegraftError(
                f"{path} does not exist. Run the pipeline first: `make retrain` or `dvc repro`."
            ) from None
        except (
            KeyError,
            ValueError,
            Fail,
            InvalidArgument,
            InvalidGraph,
            InvalidProtobuf,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise RegraftError(f"{path} is not a model exported by Regraft ({reason}). Export it again.") from None

    def probabilities(self, photo: np.ndarray) -> np.ndarray:
        """Return one probability per class.

        Args:
            photo: uint8 RGB, shape (height, width, 3), any size, upright.

        Returns:
            float32, shape (num_classes,), in the order of `class_names`.
        """
        (outputs,) = self._session.run(["probabilities"], {"image": photo[None]})
        return np.asarray(outputs)[0]

    def open_kept(self, store: Path) -> Namespace:
        """Open the part of the store that holds what this very file said of photos."""
        facts = {
            "model": self.digest,
            "engine": f"onnxruntime {onnxruntime.__version__} (CPU)",
            "decoder": f"pillow {PIL.__version__}",
        }
        return open_namespace(store, "probabilities", facts, shape=(len(self.class_names),), dtype="float32")

    def probabilities_of(
        self,
        dataset: Dataset,
        raw: Path,
        *,
        kept: Namespace | None,
        workers: int,
        on_progress: Callable[[int, int], None],
    ) -> np.ndarray:
        """Return the probabilities of a whole data set, read from the files in the data folder `raw`.

        Args:
            dataset: the photos.
            raw: the data folder.
            kept: from `open_kept`: a photo that this file has seen is not run again. None runs all of them.
            workers: threads that decode and run; 0 means one per core.
            on_progress: called with the number of photos done and to do.

        Returns:
            float32, shape (n, num_classes), in the order of the data set.
        """
        photos = {key_of(photo.digest): photo for photo in dataset.photos()}
        new = list(photos) if kept is None else kept.missing(photos)
        computed = in_threads(lambda key: self.probabilities(read_photo(raw, photos[key])), new, workers=workers)
        rows: dict[Key, np.ndarray] = {}
        last = time.perf_counter()
        for key, probabilities in zip(new, computed, strict=True):
            rows[key] = probabilities
            if kept is not None:
                kept.append([key], probabilities[None], seconds=time.perf_counter() - last)
            last = time.perf_counter()
            on_progress(len(rows), len(new))
        if kept is not None:
            kept.flush()
            rows |= dict(zip(photos, kept.read(list(photos)), strict=True))
        return np.stack([rows[key_of(digest)] for digest in dataset.rows.digest])
