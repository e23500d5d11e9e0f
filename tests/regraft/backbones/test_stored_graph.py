"""The frozen graph between runs: whatever happened to its file, the graph that is used is the one that was built."""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from regraft.backbones import trunk as module
from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import Agreement, Trunk, load_trunk
from regraft.core import provenance
from regraft.core.errors import RegraftError
from tests.support.library import SMALL_CHOICE

BUILD = module._build_graph


def _graph(_: Any = None) -> tuple[onnx.ModelProto, Agreement]:
    """A graph with the outputs of a frozen backbone, as if it had been compared with Keras."""
    images = helper.make_tensor_value_info("prepared", TensorProto.FLOAT, ["n", 4])
    outputs = [
        helper.make_tensor_value_info("activations", TensorProto.FLOAT, ["n", 2, 2, 1]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 4]),
    ]
    nodes = [
        helper.make_node("Reshape", ["prepared", "shape"], ["activations"]),
        helper.make_node("Identity", ["prepared"], ["features"]),
    ]
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 2, 2, 1])
    graph = helper.make_graph(nodes, "frozen", [images], outputs, [shape])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), Agreement(8, 1e-06)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trunk]:
    """A function that loads a backbone whose conversion costs nothing."""
    monkeypatch.setattr(module, "_build_graph", _graph)
    backbone = replace(choose_backbone(SMALL_CHOICE), engine="onnxruntime")
    return lambda folder="graphs", shared=None: load_trunk(backbone, tmp_path / folder, shared=shared)


@pytest.mark.parametrize("suffix", [".onnx", ".json"])
def test_no_flipped_bit_and_no_truncation_changes_the_graph(load, suffix):
    before = load()
    path = before.path.with_suffix(suffix)
    good = path.read_bytes()
    places = range(0, len(good), 29)
    damaged = [good[:place] for place in places]
    damaged += [good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :] for place in places]
    for contents in (*damaged, b"", bytes(len(good)), b"\xff" * 64):
        path.write_bytes(contents)
        assert load().digest == before.digest
        assert path.read_bytes() == good


@pytest.mark.parametrize("loss", [shutil.rmtree, lambda folder: next(folder.glob("*.onnx")).write_bytes(b"?")])
def test_a_graph_that_is_gone_when_it_is_exported_is_an_error_that_says_what_to_do(load, tmp_path, loss):
    trunk = load()
    loss(tmp_path / "graphs")
    with pytest.raises(RegraftError, match=r"was removed or damaged while it was in use\. Run the same command again"):
        trunk.read_graph()


class Shelf(dict[str, bytes]):
    """A place that machines share."""

    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, contents: bytes) -> None:
        self[name] = contents


def test_a_machine_takes_the_graph_that_another_has_converted(load, monkeypatch):
    shelf = Shelf()
    before = load("a", shelf)
    monkeypatch.setattr(module, "_build_graph", lambda _: pytest.fail("converted again"))
    assert load("b", shelf).digest == before.digest
    assert load("b").agreement == before.agreement  # it is here now


def test_a_machine_without_tensorflow_takes_the_graph_by_what_it_knows_of_it(load, monkeypatch):
    shelf = Shelf()
    before = load("a", shelf)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "tensorflow" else name)
    monkeypatch.setattr(module, "_build_graph", lambda _: pytest.fail("converted"))
    versions = provenance.installed_versions() | {"tensorflow": "none"}
    monkeypatch.setattr(provenance, "installed_versions", lambda: versions)
    assert load("b", shelf).digest == before.digest


def test_a_machine_without_tensorflow_says_where_the_graph_can_come_from(load, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "tensorflow" else name)
    monkeypatch.setattr(module, "_build_graph", BUILD)
    with pytest.raises(RegraftError, match="is nowhere, and there is no TensorFlow here to convert it"):
        load("b", Shelf())


@pytest.mark.parametrize("damage", [lambda contents: contents[:-1], lambda _: b'{"graph": "../x.onnx"}'])
def test_damage_in_the_shared_place_costs_a_conversion_and_is_put_right(load, damage):
    shelf = Shelf()
    before = load("a", shelf)
    sound = dict(shelf)
    for name in sound:
        shelf[name] = damage(sound[name])
    assert load("b", shelf).digest == before.digest
    assert shelf == sound
