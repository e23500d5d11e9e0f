import importlib
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from regraft.core.errors import ExportMismatch
from regraft.core.files import read_json, sha256_of
from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import with_head
from regraft.photos.dataset import read_dataset
from tasks.export_onnx import export_onnx
from tests.support.small_project import quiet

module = importlib.import_module("tasks.export_onnx")


def test_the_same_model_gives_the_same_bytes(project, small_params):
    before = sha256_of(project / "models" / "model.onnx")
    export_onnx.function(small_params, quiet)
    assert (
        sha256_of(project / "models" / "model.onnx")
        == before
        == read_json(project / "reports" / "export.json")["sha256"]
    )


def test_a_file_that_differs_from_what_was_trained_is_not_written(project, small_params, monkeypatch):
    before = sha256_of(project / "models" / "model.onnx")

    def with_another_head(*args, **kwargs) -> onnx.ModelProto:
        graph = with_head(*args, **kwargs)
        kernel, _ = (tensor for tensor in graph.graph.initializer if list(tensor.dims) == [1280, 3])  # and prototypes
        kernel.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(kernel), kernel.name))
        return graph

    monkeypatch.setattr(module, "with_head", with_another_head)
    with pytest.raises(ExportMismatch, match=r"differ by .* over 18 val photos \(allowed: 0\.002\)"):
        export_onnx.function(small_params, quiet)
    assert sha256_of(project / "models" / "model.onnx") == before


def test_a_threshold_on_val_that_keeps_its_promise_is_in_the_file_and_in_the_report(project, small_params):
    report = read_json(project / "reports" / "export.json")["abstention"]
    promise = OnnxClassifier(project / "models" / "model.onnx").promise
    assert promise
    assert (report["promise"], promise.target_precision) == (asdict(promise), small_params.evaluate.target_precision)
    assert report["images"] == (read_dataset(project / "build" / "dataset.parquet", Path()).rows.split == "val").sum()
    assert "at least 30% of answers are right (95% confidence)" in report["words"]
