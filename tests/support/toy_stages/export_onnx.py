"""Toy stage: the file to ship."""

import numpy as np

from regraft.core.config import Params
from regraft.core.files import read_json, write_bytes
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import classifier_of, obey


@stage
def export_onnx(params: Params, progress: Progress) -> None:
    """Write models/model.onnx."""
    obey("export_onnx", "begin")
    model = read_json(params.paths.model)
    write_bytes(params.paths.onnx, classifier_of(np.array(model["weights"]), model["names"]))
    obey("export_onnx", "end")


if __name__ == "__main__":
    export_onnx.run()
