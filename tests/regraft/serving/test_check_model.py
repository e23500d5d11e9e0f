"""`check-model`: what it finds of sound models, of older ones, of damaged ones, and of files that mean harm."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from regraft.errors import RegraftError
from regraft.production.registry import Production
from regraft.serving import check_model as module
from regraft.serving.check_model import Check, check_model, told
from tests.support.served import colour_graph, promote_and_serve, serve, write_colour_model

NAMES = ["sha256", "loads", "contract", "metadata", "answers", "golden photo", "Triton"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """models/production with one model."""
    folder = tmp_path / "models" / "production"
    promote_and_serve(folder, 1.0)
    return folder


def failed(path: Path) -> list[str]:
    return [check.name for check in check_model(path) if check.status == "failed"]


def words_of(path: Path, name: str) -> str:
    return next(check.words for check in check_model(path) if check.name == name)


@pytest.mark.parametrize("part", ["", "model.onnx", "regraft", "regraft/1", "regraft/1/model.onnx"])
def test_a_promoted_model_passes_every_check_by_whatever_path(folder, part):
    checks = check_model(folder / part)
    assert [(check.name, check.status) for check in checks] == [(name, "ok") for name in NAMES]


def test_a_copy_of_the_repository_alone_passes(folder, tmp_path):
    shutil.copytree(folder / "regraft", tmp_path / "elsewhere" / "regraft")
    assert failed(tmp_path / "elsewhere") == []


def test_production_of_an_earlier_version_passes_with_a_word_on_what_is_missing(folder):
    shutil.rmtree(folder / "regraft")
    found = {check.name: check for check in check_model(folder)}
    assert {check.status for check in found.values()} == {"ok", "note"}
    assert "`regraft promote` writes one" in found["golden photo"].words
    assert "`regraft promote` writes one" in found["Triton"].words


def test_a_file_of_an_earlier_version_passes_with_a_word_on_what_is_missing(tmp_path):
    graph = colour_graph()
    del graph.graph.output[1:]
    helper.set_model_props(graph, {"class_names": '["a", "b", "c"]'})
    onnx.save(graph, tmp_path / "old.onnx")
    found = {check.name: check for check in check_model(tmp_path / "old.onnx")}
    assert {check.status for check in found.values()} == {"ok", "note"}
    assert "without `features` and `novelty`" in found["contract"].words
    assert "does not say novelty_above, temperature" in found["metadata"].words
    assert "nothing beside it says which it should be" in found["sha256"].words


# What is found.


def test_another_file_in_the_place_of_the_model_is_found_by_its_sha256(folder):
    onnx.save(colour_graph(gain=3.0), folder / "model.onnx")
    assert "sha256" in failed(folder)
    assert "as log.jsonl says" in words_of(folder, "sha256")


def test_between_two_steps_of_a_promotion_the_old_and_the_new_model_are_both_sound(folder):
    new = write_colour_model(folder, gain=2.0)
    log = (folder / "log.jsonl").read_bytes()
    Production(folder).promote(new, "a test", keep=5)
    line = (folder / "log.jsonl").read_bytes().removeprefix(log)
    (folder / "log.jsonl").write_bytes(log)
    (folder / "change.json").write_bytes(line)  # killed after the model, before the line
    assert words_of(folder, "sha256").endswith("as change.json says")
    assert failed(folder) == ["golden photo", "Triton"]
    assert "version 1 is another model" in words_of(folder, "Triton")
    serve(folder)
    assert failed(folder) == []


def test_a_machine_that_computes_something_else_is_found_by_the_golden_photo(folder, monkeypatch):
    run = module.Look.__dict__["golden"].__globals__["_Loaded"].run

    def wrong(model, photos):
        return run(model, np.ascontiguousarray(photos[..., ::-1]))

    monkeypatch.setattr(module.Look.__dict__["golden"].__globals__["_Loaded"], "run", wrong)
    assert failed(folder) == ["golden photo"]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["probabilities"].reverse(),
        lambda said: said.update(novelty=said["novelty"] + 0.001),
        lambda said: said.update(model_sha256="0" * 64),
        lambda said: said.update(class_names=["x", "y", "z"]),
        lambda said: said.update(tolerance=1.0),
        lambda said: said.update(tolerance="1e-4"),
        lambda said: said.update(probabilities=[float("nan")] * 3),
        lambda said: said.update(photo_sha256="0" * 64),
        lambda said: said.pop("novelty"),
        lambda said: said.update(class_names={"a": 1}, probabilities={"a": 1}),
    ],
)
def test_another_golden_answer_fails(folder, change):
    path = folder / "regraft" / "1" / "golden.json"
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))
    assert failed(folder) == ["golden photo"]


def test_labels_in_another_order_fail_and_a_configuration_of_ones_own_is_said(folder):
    labels, config = folder / "regraft" / "labels.txt", folder / "regraft" / "config.pbtxt"
    config.write_text(config.read_text() + "dynamic_batching { }\n")
    assert failed(folder) == []
    assert "config.pbtxt is not the one that Regraft writes" in words_of(folder, "Triton")
    labels.write_text("".join(reversed(labels.read_text().splitlines(keepends=True))))
    assert failed(folder) == ["Triton"]


# Files that are no model, or that mean harm.


def _saved(path: Path, change) -> None:
    graph = colour_graph()
    change(graph)
    onnx.save(graph, path)


def _renamed(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "picture"


def _float(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _no_probabilities(graph: onnx.ModelProto) -> None:
    del graph.graph.output[0]


def _not_a_number(graph: onnx.ModelProto) -> None:
    graph.graph.initializer[-1].raw_data = np.full((3, 3), np.nan, np.float32).tobytes()


def _logits(graph: onnx.ModelProto) -> None:
    graph.graph.node[4].op_type = "Identity"


def _of_the_batch(graph: onnx.ModelProto) -> None:
    graph.graph.node[4].attribute.append(helper.make_attribute("axis", 0))


def _named(names: object):
    return lambda graph: helper.set_model_props(graph, {"class_names": json.dumps(names)})


def _said(text: str):
    return lambda graph: helper.set_model_props(graph, {"class_names": text})


HARM = {
    "another input": (_renamed, "image"),
    "floats": (_float, "image"),
    "no probabilities": (_no_probabilities, "probabilities"),
    "not a number": (_not_a_number, "no number"),
    "logits": (_logits, "sum is not 1"),
    "a softmax over the batch": (_of_the_batch, "sum is not 1"),
    "no classes": (_named([]), "class_names"),
    "one class": (_named(["a"]), "class_names"),
    "too many classes": (_named(["a", "b", "c", "d"]), ""),
    "numbers as names": (_named([1, 2, 3]), "class_names"),
    "names twice": (_named(["a", "a", "b"]), "class_names"),
    "names that are no list": (_named({"a": 0}), "class_names"),
    "no names": (lambda graph: helper.set_model_props(graph, {}), "class_names"),
    "deep names": (_said("[" * 100_000), ""),
    "names that are no JSON": (_said("apple"), ""),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_model_that_does_not_keep_the_contract_fails_with_what_was_expected(tmp_path, harm):
    change, words = HARM[harm]
    _saved(tmp_path / "model.onnx", change)
    (check,) = [check for check in check_model(tmp_path) if check.status == "failed"]
    assert words in check.words


@pytest.mark.parametrize("contents", [b"", b"no model", b"\x08\x08" + os.urandom(5000), b"\xff" * 5000])
def test_what_is_no_model_fails_to_load(tmp_path, contents):
    (tmp_path / "model.onnx").write_bytes(contents)
    assert failed(tmp_path) in (["loads"], ["contract"])


def test_half_a_model_fails(folder):
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    assert failed(folder) == ["sha256", "loads"]


def test_what_a_terminal_would_obey_is_shown_as_text(tmp_path):
    _saved(tmp_path / "model.onnx", lambda graph: helper.set_model_props(graph, {
        "class_names": '["a", "b", "c"]', "regraft_version": "\x1b[2J\u202e"
    }))  # fmt: skip
    assert "\x1b" not in told(check_model(tmp_path))
    assert "\\x1b" in told(check_model(tmp_path))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_regular_file_is_never_waited_for(tmp_path, make):
    make(tmp_path / "model.onnx")
    with pytest.raises(RegraftError, match=r"is no regular file|holds no model"):
        check_model(tmp_path)


def test_a_file_longer_than_any_model_is_not_read(tmp_path):
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RegraftError, match="no ONNX file has more than"):
        check_model(tmp_path)


def test_a_golden_photo_of_a_billion_pixels_is_not_decoded(folder):
    from hashlib import sha256

    path = folder / "regraft" / "1"
    Image.new("RGB", (30_000, 200)).save(path / "golden.png")
    said = json.loads((path / "golden.json").read_text())
    said["photo_sha256"] = sha256((path / "golden.png").read_bytes()).hexdigest()
    (path / "golden.json").write_text(json.dumps(said))
    assert failed(folder) == ["golden photo"]


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_where_there_is_no_model_it_says_what_was_expected(tmp_path, path):
    with pytest.raises(RegraftError, match="Expected a model.onnx, a folder models/production, or a Triton repository"):
        check_model(tmp_path / path)


def test_the_last_line_names_what_failed():
    checks = [Check("a", "ok", "fine"), Check("b", "failed", "not so"), Check("c", "failed", "nor this")]
    assert told(checks).splitlines()[-1] == "2 of 3 checks failed: b, c."
    assert told(checks[:1]).splitlines()[-1] == "Every check passed."


ALONE = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"onnx", "pandas", "pyarrow", "pydantic", "tensorflow", "keras", "prefect",
                                      "scipy", "sklearn", "lazy_loader", "ruamel", "filelock", "pi_heif", "dvc"}:
            raise ImportError(name)
sys.meta_path.insert(0, Only())
import runpy
sys.argv = ["check_model", sys.argv[1]]
runpy.run_module("regraft.serving.check_model", run_name="__main__")
"""


@pytest.mark.parametrize(("damaged", "status"), [(False, 0), (True, 1)])
def test_it_runs_where_nothing_but_onnx_runtime_numpy_and_pillow_is_installed(folder, root, damaged, status):
    if damaged:
        (folder / "regraft" / "1" / "golden.png").unlink()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    last = "1 of 7 checks failed: golden photo." if damaged else "Every check passed."
    assert done.stdout.splitlines()[-1] == last
