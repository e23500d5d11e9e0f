"""A Triton model repository, as Triton's inference server reads it: what stands in it, and how it is laid out.

    regraft/
        config.pbtxt              what goes in and comes out
        labels.txt                one class name a line, in the order of the probabilities
        <version>/model.onnx      whole numbers; Triton serves the highest
        configs/<name>.pbtxt      yours, if you want another configuration; nothing here touches it

Source: model_config.proto and docs/user_guide/model_configuration.md of triton-inference-server 2.73 (26.09).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft.errors import printable

NAME = "regraft"
CONFIG, LABELS = "config.pbtxt", "labels.txt"
MODEL = "model.onnx"
_BATCH = 32  # photos in one request at most; those of a batch have one size
_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
_HEAD = """\
# Written by Regraft, and replaced when a model with other classes or outputs goes into production. A configuration of
# your own belongs in configs/<name>.pbtxt beside this file: tritonserver --model-config-name=<name>.
name: "{name}"
backend: "onnxruntime"
default_model_filename: "{model}"
max_batch_size: {batch}
"""
_TAIL = """\
version_policy { latest { num_versions: 1 } }
# A CPU, because that is what the file was compared on. One photo at a time, on all cores: the shortest wait. For the
# most photos a second, count is the number of cores and intra_op_thread_count is "1".
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "0" } }
"""


def config_of(inputs: Sequence[Any], outputs: Sequence[Any]) -> str:
    """Return config.pbtxt.

    Args:
        inputs: of the file, as a session of ONNX Runtime lists them: name, type and shape with the batch first.
        outputs: of it; those that Regraft does not know are left out.
    """
    given = [_tensor(node) for node in inputs]
    made = [_tensor(node) for node in outputs if node.name in ("probabilities", "features", "novelty")]
    return _HEAD.format(name=NAME, model=MODEL, batch=_BATCH) + _list("input", given) + _list("output", made) + _TAIL


def labels_of(class_names: Sequence[str]) -> str:
    """Return labels.txt. A class name of Regraft's is one line; in one from elsewhere a line break is shown."""
    return "".join(f"{printable(name)}\n" for name in class_names)


def versions_in(repository: Path) -> list[int]:
    """Return the versions in the folder of a model, lowest first: the folders whose names are whole numbers."""
    try:
        names = [path.name for path in repository.iterdir() if path.is_dir()]
    except OSError:
        return []
    return sorted(int(name) for name in names if is_version(name))


def is_version(name: str) -> bool:
    """Whether the name of a folder is that of a version; one with a zero in front Triton passes over."""
    return name.isascii() and name.isdecimal() and not name.startswith("0") and len(name) <= 18


def _list(kind: str, tensors: list[str]) -> str:
    return f"{kind} [\n" + ",\n".join(tensors) + "\n]\n"


def _tensor(node: Any) -> str:
    # The batch is not among `dims` where there is a largest batch. What has no other dimension is a number a photo,
    # which Triton hands out as a list of one.
    dims = [size if isinstance(size, int) else -1 for size in node.shape[1:]]
    lines = [f'name: "{node.name}"', f"data_type: {_TYPES[node.type]}", f"dims: [ {', '.join(map(str, dims or [1]))} ]"]
    lines += [] if dims else ["reshape { shape: [ ] }"]
    lines += [f'label_filename: "{LABELS}"'] if node.name == "probabilities" else []
    return "  {\n" + "".join(f"    {line}\n" for line in lines) + "  }"
