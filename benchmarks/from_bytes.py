"""From the bytes of a file to probabilities in one graph: the decoder of onnxruntime-extensions before model.onnx.

    python -m benchmarks.from_bytes MODEL PHOTO

Its last line is JSON, as `benchmarks.clients --also` takes it. It is a process of its own, because libjpeg ends the one
in which the decoder meets a file that is neither JPEG nor PNG.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

_DOMAIN = "com.microsoft.extensions"


def from_bytes(path: Path) -> onnx.ModelProto:
    """Return the graph; input `bytes`: uint8, (size,), of one file; outputs: those of model.onnx, of a batch of one."""
    model = onnx.load(path)
    decode = helper.make_node("DecodeImage", ["bytes"], ["decoded"], domain=_DOMAIN, color_space="rgb")
    batch = helper.make_node("Unsqueeze", ["decoded", "batch_axis"], ["image"])
    nodes = [decode, batch, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["size"]))
    model.graph.initializer.append(helper.make_tensor("batch_axis", TensorProto.INT64, [1], [0]))
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return model


def ask(model: Path, photo: Path) -> dict[str, float]:
    """Return the probabilities of a photo by class name."""
    from onnxruntime_extensions import get_library_path  # pyright: ignore[reportMissingImports] - in a venv of its own

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    options.log_severity_level = 4
    graph = from_bytes(model).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    contents = np.frombuffer(photo.read_bytes(), np.uint8)
    probabilities = np.asarray(session.run(["probabilities"], {"bytes": contents})[0])[0]
    return dict(zip(names, map(float, probabilities), strict=True))


if __name__ == "__main__":
    try:
        said: dict[str, object] = dict(ask(Path(sys.argv[1]), Path(sys.argv[2])))
    except Exception as error:  # ONNX Runtime has an exception for everything, and no common one
        said = {"error": " ".join(str(error).split())}
    print(json.dumps(said))
