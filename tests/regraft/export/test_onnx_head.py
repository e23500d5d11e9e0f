"""How novel a photo is: in ONNX what it is in NumPy, and larger for what is none of the classes."""

import numpy as np
import onnx
import onnxruntime
import pytest

from regraft.export.compose import class_prototypes, head_graph, novelty_of
from regraft.training.network_file import Head, HeadSettings


@pytest.mark.parametrize("units", [0, 5])
def test_novelty_is_the_same_in_onnx_and_in_numpy_and_small_for_what_is_known(units):
    random = np.random.default_rng(0)
    centres = np.eye(3, 16, dtype=np.float32) * 10
    class_indices = np.arange(60) % 3
    features = (centres[class_indices] + random.normal(size=(60, 16))).astype(np.float32)
    prototypes = class_prototypes(features, class_indices, 3)
    shapes = [(16, units), units, (units, 3), 3] if units else [(16, 3), 3]
    head = Head(
        HeadSettings(units, "relu", "lbfgs", 0.0, 0.0, 0.1, 0.0),
        [random.normal(size=s).astype(np.float32) for s in shapes],
    )
    graph = head_graph(head, prototypes)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    other = np.vstack([np.eye(16, dtype=np.float32)[8] * 10, -centres[0], np.zeros(16, np.float32)])
    probabilities, novelty = session.run(None, {"features": np.vstack([features, other])})
    assert probabilities == pytest.approx(head.probabilities(np.vstack([features, other])), abs=1e-5)
    assert novelty == pytest.approx(novelty_of(np.vstack([features, other]), prototypes), abs=1e-6)
    assert novelty[:60].max() < 0.2
    assert novelty[60:] == pytest.approx([1, 1, 1], abs=0.1)  # unrelated, the opposite of one, and no features at all


def test_a_prototype_is_a_direction_whatever_the_length_of_features():
    features = np.array([[1, 0], [100, 0], [0, 1]], np.float32)
    prototypes = class_prototypes(features, np.array([0, 0, 1]), 2)
    assert prototypes == pytest.approx(np.eye(2))
    assert prototypes.dtype == np.float32
