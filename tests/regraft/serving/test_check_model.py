"""`check-model`: what it finds of sound models, of older ones and of damaged ones."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import helper

from regraft.production.registry import Production
from regraft.serving import model_look
from regraft.serving.check_model import Check, look_over, told
from regraft.serving.golden import write_golden
from tests.support.served import colour_graph, promote_and_serve, write_colour_model

NAMES = ["sha256", "loads", "contract", "metadata", "answers", "golden photo"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """models/production with one model."""
    folder = tmp_path / "models" / "production"
    promote_and_serve(folder, 1.0)
    return folder


def failed(path: Path) -> list[str]:
    return [check.name for check in look_over(path) if check.status == "failed"]


def words_of(path: Path, name: str) -> str:
    return next(check.words for check in look_over(path) if check.name == name)


@pytest.mark.parametrize("part", ["", "model.onnx"])
def test_a_promoted_model_passes_every_check_by_whatever_path(folder, part):
    checks = look_over(folder / part)
    assert [(check.name, check.status) for check in checks] == [(name, "ok") for name in NAMES]


def test_a_rollback_gets_its_own_golden_photo_and_the_same_model_the_same_one(folder):
    first = (folder / "golden.json").read_bytes()
    promote_and_serve(folder, 2.0)
    assert failed(folder) == []
    production = Production(folder)
    production.rollback(by=" by a test")
    assert failed(folder) == ["golden photo"]
    write_golden(production.model, pictures=1)
    assert (folder / "golden.json").read_bytes() == first


def test_production_of_an_earlier_version_passes_with_a_word_on_what_is_missing(folder):
    (folder / "golden.json").unlink()
    found = {check.name: check for check in look_over(folder)}
    assert {check.status for check in found.values()} == {"ok", "note"}
    assert "`regraft promote` writes one" in found["golden photo"].words


def test_a_file_of_an_earlier_version_passes_with_a_word_on_what_is_missing(tmp_path):
    graph = colour_graph()
    del graph.graph.output[1:]
    helper.set_model_props(graph, {"class_names": '["a", "b", "c"]'})
    onnx.save(graph, tmp_path / "old.onnx")
    found = {check.name: check for check in look_over(tmp_path / "old.onnx")}
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
    assert failed(folder) == ["golden photo"]
    write_golden(folder / "model.onnx", pictures=1)
    assert failed(folder) == []


def test_a_machine_that_computes_something_else_is_found_by_the_golden_photo(folder, monkeypatch):
    run = model_look._Loaded.run
    monkeypatch.setattr(model_look._Loaded, "run", lambda model, photos: run(model, photos[..., ::-1].copy()))
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
        lambda said: said.update(picture=said["picture"][:-400]),
        lambda said: said.update(picture="data:text/html,x"),
        lambda said: said.pop("novelty"),
        lambda said: said.update(class_names={"a": 1}, probabilities={"a": 1}),
    ],
)
def test_another_golden_answer_fails(folder, change):
    path = folder / "golden.json"
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))
    assert failed(folder) == ["golden photo"]


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
        (folder / "golden.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    last = "1 of 6 checks failed: golden photo." if damaged else "Every check passed."
    assert done.stdout.splitlines()[-1] == last
