"""Toy stage: the file to ship, again."""

from regraft.core.config import Params
from regraft.core.files import write_bytes
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import obey


@stage
def quantise(params: Params, progress: Progress) -> None:
    """Write models/model.int8.onnx."""
    obey("quantise", "begin")
    write_bytes(params.paths.onnx_int8, params.paths.onnx.read_bytes())
    obey("quantise", "end")


if __name__ == "__main__":
    quantise.run()
