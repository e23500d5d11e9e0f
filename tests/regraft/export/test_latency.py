"""Each test starts real processes; on one core and in one round, so that there are few."""

from dataclasses import replace

import numpy as np
import pytest

from regraft.core.processor import Processor
from regraft.export import latency
from regraft.export.latency import Contestant, Photos, at_size, contestants_of, measure
from regraft.photos.images import Threads


@pytest.fixture(autouse=True)
def one_round(monkeypatch):
    monkeypatch.setattr(latency, "_ROUNDS", 1)


@pytest.fixture
def on_one_core(monkeypatch):
    monkeypatch.setattr(latency, "this_processor", lambda: Processor("a processor", 1, []))


@pytest.fixture
def photos(photo) -> Photos:
    return Photos(at_size(photo(0, 60, 90), 64, 48), [photo(1, 61, 47), photo(2, 33, 90)])


@pytest.fixture
def file(colour_classifier, tmp_path):
    colour_classifier(["a", "b", "c"])
    return tmp_path / "colour.onnx"


def test_figures_are_positive_in_order_and_name_their_threads(file, photos, monkeypatch):
    monkeypatch.setattr(latency, "this_processor", lambda: Processor("a processor", 2, []))
    done = []
    threads = Threads(1, lambda *so_far: done.append(so_far))
    report = measure([Contestant("model.onnx", "onnxruntime", file)], photos, repeats=20, threads=threads)
    (row,) = report["rows"]
    for quantiles in (row["one_thread"], row["all_cores"]):
        assert 0 < quantiles["p50"] <= quantiles["p95"] <= quantiles["p99"]
    assert row["images_per_second"] > 0
    assert 0.01 < row["cold_start_seconds"] < 60
    assert row["bytes"] == file.stat().st_size
    assert 10e6 < row["peak_bytes"] < 1e9
    assert (report["cores"], report["photo"], report["repeats"], report["compared"]) == (2, [64, 48], 20, 2)
    assert (row["largest_difference"], row["same_class"]) == (0, 1)
    assert done == [(1, 2), (2, 2)]


@pytest.mark.usefixtures("on_one_core")
def test_an_engine_that_answers_otherwise_is_found_out(file, photos, colour_model, tmp_path):
    import onnx

    other = colour_model(["a", "b", "c"])
    next(tensor for tensor in other.graph.initializer if tensor.name == "full").CopyFrom(
        onnx.numpy_helper.from_array(np.array([-25], np.float32), "full")
    )
    onnx.save(other, tmp_path / "other.onnx")
    found = [Contestant("first", "onnxruntime", file), Contestant("other", "onnxruntime", tmp_path / "other.onnx")]
    first, other = measure(found, photos, repeats=2, threads=Threads(1))["rows"]
    assert first["largest_difference"] == 0
    assert other["largest_difference"] > 0.1
    assert other["same_class"] < 1


@pytest.mark.usefixtures("on_one_core")
def test_what_cannot_be_measured_is_named_with_the_reason_and_the_rest_is_measured(file, photos, tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"damaged")
    damaged = Contestant("damaged", "onnxruntime", tmp_path / "damaged.onnx")
    absent = replace(damaged, name="Keras", engine="keras", problem="it is not there")
    first, *others = measure(
        [Contestant("first", "onnxruntime", file), damaged, absent], photos, repeats=2, threads=Threads(1)
    )["rows"]
    assert "problem" not in first
    assert "INVALID_PROTOBUF" in others[0]["problem"] or "protobuf" in others[0]["problem"].lower()
    assert others[1]["problem"] == "it is not there"


def test_int8_and_openvino_take_part_where_they_are_there(tmp_path, monkeypatch):
    a, b = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    monkeypatch.setattr(latency, "find_spec", lambda name: None)
    assert [each.name for each in contestants_of(a, None, None)] == ["model.onnx"]
    monkeypatch.setattr(latency, "find_spec", lambda name: name == "openvino")
    keras = Contestant("Keras", "keras", tmp_path / "model.keras")
    names = [each.name for each in contestants_of(a, b, keras)]
    assert names == ["model.onnx", "model.int8.onnx", "model.onnx in OpenVINO", "model.int8.onnx in OpenVINO", "Keras"]
