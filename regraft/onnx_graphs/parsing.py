"""A graph from the bytes of a file, and from nothing else.

`onnx.load(path)` also opens the files that a graph names as those of its weights (external data), which may be any file
on this machine; and `numpy_helper.to_array` does so of a graph from bytes.
"""

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError, Message

from regraft.core.errors import InvalidModel


def parse_graph(contents: bytes) -> onnx.ModelProto:
    """Return a graph whose weights are all in it.

    Raises:
        ValueError: the bytes are no ONNX.
        InvalidModel: some weights are in other files.
    """
    try:
        model = onnx.load_model_from_string(contents)
    except DecodeError as error:
        raise ValueError(f"no ONNX ({error})") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise InvalidModel(
            "weights of the model are in other files; expected one file with all of them. Export it again."
        )
    return model


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield all tensors: weights, attributes of nodes, and those in subgraphs and functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type:
            for each in [value] if isinstance(value, Message) else value:
                yield from _tensors(each)
