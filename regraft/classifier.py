"""The shipped file in use: raw photos in, probabilities out, with ONNX Runtime and what the file says of itself."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf

from regraft.dataset import Dataset, read_photo
from regraft.errors import RegraftError
from regraft.images import in_threads


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
            1  # photos are taken in parallel instead, each by one thread: see regraft/engines.py
        )
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
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

    def probabilities_of(
        self, dataset: Dataset, raw: Path, *, workers: int, on_progress: Callable[[int, int], None]
    ) -> np.ndarray:
        """Return the probabilities of a whole data set, read from the files in the data folder `raw`:

        float32, shape (n, num_classes), in the order of the data set."""
        rows = np.empty((len(dataset), len(self.class_names)), np.float32)
        photos = dataset.photos()
        computed = in_threads(lambda photo: self.probabilities(read_photo(raw, photo)), photos, workers=workers)
        for index, probabilities in enumerate(computed):
            rows[index] = probabilities
            on_progress(index + 1, len(dataset))
        return rows
