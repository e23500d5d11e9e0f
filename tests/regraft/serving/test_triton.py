"""A Triton repository: its config.pbtxt by Triton's own schema, and what the files beside it say."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import descriptor_pool, message_factory, text_format

from regraft.serving.triton import config_of, labels_of, versions_in
from tests.support.served import CLASSES, colour_graph

SCHEMA = Path(__file__).parents[2] / "data" / "triton" / "model_config.desc"


def parsed(text: str) -> Any:
    """The configuration, read as Triton reads it: an unknown field, or a value of another kind, is an error."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(SCHEMA.read_bytes())
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return text_format.Parse(text, config())


@pytest.fixture
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(colour_graph().SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture
def config(session):
    return parsed(config_of(session.get_inputs(), session.get_outputs()))


def test_the_configuration_is_one_by_the_schema_and_serves_the_newest_version(config):
    assert (config.name, config.backend, config.default_model_filename) == ("regraft", "onnxruntime", "model.onnx")
    assert config.version_policy.latest.num_versions == 1
    assert [group.Kind.Name(group.kind) for group in config.instance_group] == ["KIND_CPU"]
    assert config.parameters["intra_op_thread_count"].string_value == "0"


def test_with_the_batch_in_front_inputs_and_outputs_are_those_of_the_graph(config, session):
    # Triton's backend compares them exactly: the batch, then `reshape` where there is one, or else `dims`.
    nodes = {node.name: node for node in [*session.get_inputs(), *session.get_outputs()]}
    tensors = [*config.input, *config.output]
    assert [tensor.name for tensor in tensors] == ["image", "probabilities", "features", "novelty"]
    for tensor in tensors:
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        shape = [size if isinstance(size, int) else -1 for size in nodes[tensor.name].shape]
        assert [-1, *dims] == shape, tensor.name
        kinds = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)"}
        assert kinds[config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[tensor.data_type].name] == (
            nodes[tensor.name].type
        )


def test_a_batch_of_as_many_photos_as_the_configuration_allows_is_computed(config, session):
    photos = np.zeros((config.max_batch_size, 5, 4, 3), np.uint8)
    assert session.run(["novelty"], {"image": photos})[0].shape == (config.max_batch_size,)


def test_only_probabilities_have_labels(config):
    assert {tensor.name: tensor.label_filename for tensor in config.output} == {
        "probabilities": "labels.txt",
        "features": "",
        "novelty": "",
    }


def test_a_file_of_an_earlier_version_is_served_with_the_output_that_it_has():
    graph = colour_graph()
    del graph.graph.output[1:]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    config = parsed(config_of(session.get_inputs(), session.get_outputs()))
    assert [tensor.name for tensor in config.output] == ["probabilities"]


def test_a_label_is_one_line_whatever_it_holds():
    # Triton splits at line feeds and nowhere else.
    names = [*CLASSES, "two\nlines", "with\rreturn", "end\u2028"]
    assert len(labels_of(names).removesuffix("\n").split("\n")) == len(names)
    assert labels_of(CLASSES) == "apple\ngreen pear\npiña\n"


def test_versions_are_folders_whose_names_are_whole_numbers(tmp_path):
    for name in ("1", "10", "9", "007", "3.old", "-2", "configs", "³", ".5"):
        (tmp_path / name).mkdir()
    (tmp_path / "77").touch()
    assert versions_in(tmp_path) == [1, 9, 10]
    assert versions_in(tmp_path / "nowhere") == []
