"""Models that serving is tested with."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from regraft.serving.command import main

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
MakeModel = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def make_model(colour_model: Callable[[list[str]], onnx.ModelProto], tmp_path: Path) -> MakeModel:
    """A function that writes a classifier by colour, and returns its path; an old one has no output `novelty`."""

    def make(*, is_old: bool = False, name: str = "model.onnx", **metadata: Any) -> Path:
        model = colour_model(list(COLOURS))
        if not is_old:  # 1 - the largest probability: 0.42 of a pure colour, 0.67 of grey
            model.graph.node.extend(
                [
                    helper.make_node("ReduceMax", ["probabilities", "last"], ["largest"], keepdims=0),
                    helper.make_node("Sub", ["one", "largest"], ["novelty"]),
                ]
            )
            model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "last"))
            model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
            model.graph.output.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"]))
        facts = {"class_names": json.dumps(list(COLOURS))} | {key: str(value) for key, value in metadata.items()}
        helper.set_model_props(model, facts)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a photo of each colour and a grey one, in two folders."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 6), colour).save(folder / f"{name}.png")
    Image.new("RGB", (8, 6), (90, 90, 90)).save(folder / "more" / "grey.png")
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """A function that runs the command, and returns its exit status and what it wrote."""

    def run(*arguments: object, standard_input: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(standard_input)))
        status = main([str(argument) for argument in arguments])
        written, said = capsys.readouterr()
        return status, written, said

    return run
