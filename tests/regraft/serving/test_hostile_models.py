"""What `regraft predict` makes of models that mean harm: one sentence and exit status 1, in time, and no other file."""

import time

import numpy as np
import pytest
from onnx import TensorProto

from regraft.core.errors import InvalidModel
from regraft.export.classifier import Answers, OnnxClassifier
from regraft.production.records import load_former
from regraft.serving import model_probe, shipped_model
from tests.support.hostile_models import (
    constant,
    endless,
    endless_folding,
    endless_on_photos_of_height_6,
    external,
    hostile_model,
    memory_bomb,
    node,
    write_model,
)

WORDS = np.array([["0.5", "0.25", "0.25"]], object)
HARM = {
    "no numbers": (lambda: constant(np.nan, 0.5, 0.5), "found nan, 0.5, 0.5"),
    "infinity": (lambda: constant(np.inf, 0, 0), "found inf, 0, 0"),
    "above 1": (lambda: constant(5.0, 0, 0), "found 5, 0, 0 with sum 5"),
    "a sum above 1": (lambda: constant(0.9, 0.9, 0.9), "with sum 2.7"),
    "a sum below 1": (lambda: constant(0, 0, 0), "with sum 0"),
    "below 0": (lambda: constant(-1, 1, 1), "found -1, 1, 1"),
    "texts": (
        lambda: hostile_model([node("Identity", ["said"], ["probabilities"])], kind=TensorProto.STRING, said=WORDS),
        "expected probabilities as float32, found tensor(string)",
    ),
    "whole numbers": (lambda: constant(1, 0, 0, dtype=np.int64, kind=TensorProto.INT64), "found tensor(int64)"),
    "too few": (lambda: constant(0.5, 0.5), "expected 2 class_names, found 3"),
    "no rows": (
        lambda: hostile_model([node("Identity", ["said"], ["probabilities"])], said=np.zeros((0, 3), np.float32)),
        "gives an output of shape (0, 3)",
    ),
    "no classes": (lambda: constant(0.5, 0.25, 0.25, names=[]), "must be different names, found []"),
    "equal names": (lambda: constant(0.5, 0.25, 0.25, names=["a", "a", "b"]), "must be different names"),
    "an empty name": (lambda: constant(0.5, 0.25, 0.25, names=["", "a", "b"]), "a list of names"),
    "fewer names": (
        lambda: constant(0.5, 0.25, 0.25, names=["a", "b"]),
        "expected 3 class_names, found 2",
    ),
    "a loop without end": (endless, "takes longer than 3 s"),
    "a loop on some photos": (endless_on_photos_of_height_6, "takes longer than 2 s for one photo"),
    "loading without end": (endless_folding, "takes longer than 3 s"),
    "all memory": (memory_bomb, "Failed to allocate memory"),
    "weights beside it": (lambda: external("secret.bin"), "External data"),
    "weights in the working folder": (lambda: external("in_cwd.bin"), "External data"),
    "weights anywhere": (lambda: external("../../../../../../etc/passwd"), "External data"),
    "weights at the root": (lambda: external("/etc/passwd"), "External data"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_model_that_means_harm_is_refused_in_one_sentence(call, photos, tmp_path, monkeypatch, harm):
    make, words = HARM[harm]
    monkeypatch.setattr(model_probe, "SECONDS", 3)
    monkeypatch.setattr(shipped_model, "PHOTO_SECONDS", 2.0)
    path = write_model(tmp_path / "there", make)
    (tmp_path / "in_cwd.bin").write_bytes((path.parent / "secret.bin").read_bytes())
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    status, written, said = call(path, photos, "--format", "jsonl")
    assert (status, written) == (1, "")
    assert said.startswith("predict stopped: ")
    assert said.count("\n") == 1
    assert words in said
    assert time.monotonic() - began < 60  # and not for hours; the machine may be busy


def test_a_model_is_tried_once_in_a_process(call, make_model, photos, monkeypatch):
    ran = []
    run = model_probe.subprocess.run
    monkeypatch.setattr(model_probe.subprocess, "run", lambda *args, **how: ran.append(args) or run(*args, **how))
    for _ in range(2):
        assert call(make_model(temperature=1.5), photos)[0] == 0
    assert len(ran) == 1


NONE_OF_THEM = ["no numbers", "texts", "equal names", "a loop without end", "weights beside it"]


@pytest.mark.parametrize("harm", NONE_OF_THEM)
def test_the_gate_and_scoring_find_no_model_in_it(tmp_path, monkeypatch, harm):
    make, words = HARM[harm]
    monkeypatch.setattr(model_probe, "SECONDS", 3)
    model, problem = load_former(write_model(tmp_path, make))
    assert model is None
    assert words in str(problem)


def test_answers_that_were_stored_are_looked_at_too(make_model):
    classifier = OnnxClassifier(make_model())
    rows = np.array([[0.5, 0.25, 0.25, 0.1], [0.5, 0.25, 0.25, np.nan]], np.float32)
    assert len(Answers.of(rows[:1], classifier).probabilities) == 1
    for wrong in (rows, rows * 2, rows[:, ::-1]):
        with pytest.raises(InvalidModel):
            Answers.of(wrong, classifier)
