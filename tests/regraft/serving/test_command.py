"""`regraft predict` and `python -m regraft.serving`, as a person calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from regraft.core.params_file import load_params
from regraft.export.abstention import choose_threshold
from regraft.serving import command, output, photo_files
from tests.support.odd_files import write_odd_files
from tests.support.predicted import NOVELTY, PROMISE, PURE, rows_of


def test_each_photo_has_a_row_with_class_probability_and_novelty(call, make_model, photos):
    status, written, said = call(make_model(**PROMISE, **NOVELTY), photos, "--format", "jsonl", "--top", 2)
    rows = {Path(row["path"]).stem: row for row in rows_of(written)}
    assert status == 0
    assert rows["red"] == {
        "path": str(photos / "red.png"),
        "class": "red",
        "probability": PURE,
        "unsure": False,
        "novelty": pytest.approx(1 - PURE, abs=2e-6),
        "novel": False,
        "top": [{"class": "red", "probability": PURE}, {"class": "green", "probability": 0.211942}],
        "error": None,
    }
    assert [rows["grey"][name] for name in ("class", "unsure", "novel")] == [None, True, True]
    assert said == "4 photos: 4 classified (1 unsure, 1 novel).\n"


@pytest.mark.parametrize(("threshold", "classified"), [(0, 4), (0.5, 3), (0.6, 0)])
def test_a_threshold_takes_the_place_of_the_models_own(call, make_model, photos, threshold, classified):
    model = make_model(**PROMISE | {"abstain_below": 0.55})
    written = call(model, photos, "--format", "jsonl", "--threshold", threshold)[1]
    assert sum(row["class"] is not None for row in rows_of(written)) == classified


def test_a_model_of_before_thresholds_and_novelty_answers_and_what_is_missing_is_said(call, make_model, photos):
    status, written, said = call(make_model(is_old=True), photos, "--format", "csv")
    assert status == 0
    assert written.splitlines()[1] == f"{photos}/blue.png,blue,{PURE},false,,,blue,{PURE},"
    assert "no threshold, so it answers everything" in said
    assert "no output novelty" in said


@pytest.mark.parametrize(
    ("val_photos", "target", "words"),
    [
        (38, 0.98, "to show that 98% of answers are right takes 149 val photos, and there were 38."),
        (200, 0.98, "200 val photos show of no probability that 98% of answers are right"),
        (200, None, "evaluate.target_precision was null when it was exported."),
    ],
)
def test_a_model_without_a_threshold_says_why_and_is_not_taken_for_an_older_one(
    call, make_model, photos, val_photos, target, words
):
    right = np.arange(val_photos) % 2 == 0 if val_photos == 200 else np.ones(val_photos, bool)
    metadata = choose_threshold(right, np.linspace(1, 0.5, val_photos), target).as_metadata()
    model = make_model(**NOVELTY, **metadata)
    said = call(model, photos)[2]
    assert f"This model answers everything (--threshold sets a limit): {words}" in said
    assert "earlier version" not in said
    assert words not in call(model, photos, "--threshold", 0.5)[2]


@pytest.mark.parametrize(
    "entry",
    [
        *("38", "[]", "{}", "[" * 100_000, '{"target_precision": 0.98, "val_photos": 38}'),
        '{"target_precision": "\\u001b[2J", "val_photos": 38, "photos_needed": 149}',
        '{"target_precision": NaN, "val_photos": 38, "photos_needed": 149}',
        '{"target_precision": 0.98, "val_photos": "many", "photos_needed": 149}',
    ],
)
def test_a_model_that_gives_no_reason_where_one_belongs_is_none_of_ours(call, make_model, photos, entry):
    status, _, said = call(make_model(no_threshold=entry), photos)
    assert (status, "is not a model exported by Regraft" in said) == (1, True)


def test_bad_files_are_named_and_the_rest_is_done(call, make_model, photos):
    verdicts = write_odd_files(photos / "odd")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    status, written, said = call(make_model(), photos, photos / "nowhere", "--format", "jsonl", "--workers", 3)
    errors = {Path(row["path"]).name: row["error"] for row in rows_of(written)}
    assert status == 0
    assert {name for name, error in errors.items() if error} == {
        *(name for name, verdict in verdicts.items() if verdict == "quarantine"),
        *("pipe.jpg", "gone.jpg", "nowhere"),
    }
    assert "3 other files skipped" in said  # a folder's file that nobody meant as a photo; named, it has a row
    assert rows_of(call(make_model(), photos / "odd" / "notes.txt", "--format", "jsonl")[1])[0]["error"]


def test_a_photo_above_the_limit_is_named_with_its_pixels_and_the_option(call, make_model, photos):
    status, written, said = call(make_model(), photos, "--max-pixels", 47)
    assert "red.png: 8 x 6 pixels, more than --max-pixels 47 allows" in written
    assert (status, said.splitlines()[-1]) == (1, "4 photos: 0 classified, 4 bad.")


def test_a_list_on_standard_input_is_taken_and_an_empty_one_is_no_error(call, make_model, photos):
    listed = f"{photos}/red.png\n{photos}/more\n".encode()
    status, written, _ = call(make_model(), "-", "--format", "jsonl", standard_input=listed)
    assert (status, [Path(row["path"]).name for row in rows_of(written)]) == (0, ["red.png", "grey.png"])
    status, written, said = call(make_model(), "-", "--format", "jsonl")
    assert (status, written, said.splitlines()[-1]) == (0, "", "0 photos: 0 classified.")


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (None, "does not exist"),
        (b"", "is not a model exported by Regraft"),
        (b"no model", "is not a model exported by Regraft"),
        ("foreign", "expected one input, image of uint8, found x of tensor(float)"),
        ("nameless", "'class_names'"),
        ("other", "expected 3 class_names, found 2"),
        ("text", "class_names must be a list of names"),
        ("folder", "cannot be read (it is no regular file)"),
    ],
)
def test_a_model_that_is_none_of_ours_is_an_error_that_says_so(call, make_model, photos, tmp_path, contents, words):
    path = make_model(name="other.onnx", **({"class_names": '["a", "b"]'} if contents == "other" else {}))
    if contents == "foreign":
        model = onnx.load(path)
        model.graph.input[0].name = model.graph.node[0].input[0] = "x"
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        onnx.save(model, path)
    elif contents == "nameless":
        model = onnx.load(path)
        del model.metadata_props[:]
        onnx.save(model, path)
    elif contents == "text":
        path = make_model(class_names='"abc"')
    elif contents == "folder":
        path = tmp_path
    elif contents is None:
        path = tmp_path / "none.onnx"
    elif isinstance(contents, bytes):
        path.write_bytes(contents)
    status, written, said = call(path, photos)
    assert (status, written) == (1, "")
    assert words in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--top", "0"], "expected a whole number of 1 or more, found '0'"),
        (["--threshold", "2"], "expected a probability from 0 to 1, found '2'"),
        (["--threshold", "nan"], "expected a probability from 0 to 1, found 'nan'"),
        (["--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_an_option_that_cannot_be_is_named(call, make_model, photos, capsys, options, words):
    with pytest.raises(SystemExit, match="2"):
        call(make_model(), photos, *options)
    assert words in capsys.readouterr().err


def test_regraft_predict_is_the_same_command(call, make_model, photos):
    arguments = ["--format", "jsonl", "--top", "2", str(make_model(**PROMISE)), str(photos), "--", "-none.jpg"]
    done = CliRunner().invoke(app, ["predict", *arguments])
    assert (done.exit_code, done.stdout) == call(*arguments)[:2]
    assert "-none.jpg" in done.stdout
    assert "--max-pixels" in CliRunner().invoke(app, ["predict", "--help"]).stdout


def test_limits_are_those_of_training(root):
    limit = load_params(root / "params.yaml").validate_data.max_pixels
    assert limit == photo_files.MAX_PIXELS
    assert command._parser("predict").parse_args(["a", "b"]).max_pixels == limit
    (form,) = (action for action in command._parser("predict")._actions if action.dest == "format")
    assert tuple(form.choices or ()) == output.FORMATS


def test_whoever_reads_the_first_row_only_ends_it_quietly(make_model, photos, root):
    for number in range(40):
        Image.new("RGB", (4, 4)).save(photos / f"{number}.png")
    script = '"$0" -m regraft.serving "$@" | head -n 1; echo "${PIPESTATUS[0]}"'
    shell = ["bash", "-c", script, sys.executable, make_model(), photos]
    done = subprocess.run(shell, cwd=root, capture_output=True, text=True, check=True)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0", "")


def test_it_imports_onnx_runtime_numpy_and_pillow_alone(make_model, photos, root):
    script = (
        "import json, sys; sys.modules['tqdm'] = sys.modules['pi_heif'] = None\n"
        "from regraft.serving.command import main; main(sys.argv[1:])\n"
        "names = {name.split('.')[0] for name, module in sys.modules.items() if getattr(module, '__file__', None)}\n"
        "print(json.dumps(sorted(names - set(sys.stdlib_module_names))))"
    )
    shell = [sys.executable, "-S", "-c", script, make_model(), photos / "red.png"]
    environment = {"PYTHONPATH": os.pathsep.join([str(root), *sys.path[1:]])}
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"regraft", "onnxruntime"} <= loaded <= {"regraft", "onnxruntime", "numpy", "PIL", "_distutils_hack"}
