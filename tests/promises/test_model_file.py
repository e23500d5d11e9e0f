"""One file ships: it says what it is, answers as it was trained wherever it is asked, and scores a folder every day."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

from tests.promises.conftest import DIGITS, Ran
from tests.promises.user import REGRAFT, SOURCE, Project

pytestmark = pytest.mark.flow
HEAVY = {"tensorflow", "keras", "prefect", "dvc", "pandas", "pyarrow", "sklearn", "onnx", "matplotlib"}

# Runs a module as `python -m` does, and says at the end which of the heavy packages it has imported.
ALONE = f"""
import atexit, runpy, sys
atexit.register(lambda: print("heavy", sorted({HEAVY} & set(sys.modules))))
module, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def user(first_run: Ran, projects: Callable[..., Project]) -> Project:
    """A project with a model in production."""
    return projects(first_run)


@pytest.fixture(scope="module")
def session(first_run: Ran) -> onnxruntime.InferenceSession:
    """The file that ships, in ONNX Runtime."""
    path = first_run.project.root / "models/model.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def photos(user: Project) -> Path:
    """A folder of four digits, a photo of noise, and a JPEG that ends in the middle."""
    folder = user.root / "incoming"
    folder.mkdir()
    for digit in DIGITS:
        shutil.copy2(sorted((user.raw / digit).glob("*.png"))[-1], folder / f"{digit}.png")
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.jpg")
    (folder / "broken.jpg").write_bytes((folder / "noise.jpg").read_bytes()[:2000])
    return folder


def rows_of(text: str) -> dict[str, dict[str, Any]]:
    """Return the rows of JSON lines by the name of the photo."""
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {Path(row["path"]).name: row for row in rows}


def test_the_file_takes_raw_pixels_of_any_size_and_says_class_names_and_preprocessing(
    session: onnxruntime.InferenceSession,
) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == sorted(DIGITS)
    assert metadata["preprocessing"]
    assert [output.name for output in session.get_outputs()] == ["probabilities", "features", "novelty"]
    for height, width in ((1, 1), (300, 7), (64, 64)):
        image = np.full((2, height, width, 3), 200, np.uint8)
        probabilities, features, novelty = session.run(None, {"image": image})
        assert (probabilities.shape, len(features), novelty.shape) == ((2, len(DIGITS)), 2, (2,))
        assert np.allclose(probabilities.sum(1), 1, atol=1e-5)


def test_calibration_threshold_and_novelty_are_in_the_file(
    session: onnxruntime.InferenceSession, first_run: Ran
) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    assert float(metadata["temperature"]) == pytest.approx(first_run.project.report("export")["calibration"]["used"])
    assert 0 < float(metadata["novelty_above"]) < 2
    assert float(metadata["novelty_share"]) <= 0.1  # of so few val photos
    assert 1 / len(DIGITS) <= float(metadata["abstain_below"]) <= 1
    assert float(metadata["target_precision"]) == 0.8
    assert first_run.project.report("metrics")["test"]["accuracy"] > 0.6


def test_the_file_was_compared_with_what_was_trained_from_raw_file_to_probability(first_run: Ran) -> None:
    report = first_run.project.report("export")
    assert report["sha256"] == first_run.model
    assert all(each["images"] and each["largest_difference"] <= 0.002 for each in report["parity"].values())
    assert len(report["parity"]) >= 4


def test_predict_serving_and_the_client_of_the_readme_give_the_same_answers(user: Project, photos: Path) -> None:
    options = ("models/model.onnx", str(photos), "--format", "jsonl", "--no-progress")
    said = user.regraft("predict", *options)
    alone = user.run("python", "-c", ALONE, "regraft.serving", *options)
    rows = rows_of(said.stdout)
    assert (said.status, alone.status, len(rows)) == (0, 0, len(DIGITS) + 2), alone.output
    assert rows_of(alone.stdout) == rows
    assert alone.stdout.splitlines()[-1] == "heavy []"
    assert rows["broken.jpg"]["error"]
    right = 0
    for digit in DIGITS:
        client = user.succeed("python", "docs/classify.py", "models/model.onnx", str(photos / f"{digit}.png"))
        probability, name = next(line for line in client.stdout.splitlines() if line[:1] in "01").split()
        assert float(probability) == pytest.approx(rows[f"{digit}.png"]["probability"], abs=1e-4)
        right += name == digit
    assert right >= 3
    assert (SOURCE / "docs/classify.py").read_text() in (SOURCE / "README.md").read_text()


def test_predict_ends_with_1_if_not_one_photo_can_be_classified(user: Project, photos: Path) -> None:
    ran = user.regraft("predict", "models/model.onnx", str(photos / "broken.jpg"), "--format", "jsonl")
    assert (ran.status, "broken.jpg" in ran.output) == (1, True)


def test_check_model_passes_what_is_in_production_and_names_what_was_changed(user: Project, tmp_path: Path) -> None:
    passed = user.regraft("check-model", "models/production")
    assert (passed.status, "golden" in passed.output) == (0, True), passed.output
    shutil.copytree(user.root / "models/production", tmp_path / "production")
    path = tmp_path / "production/model.onnx"
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    failed = user.regraft("check-model", str(tmp_path / "production"))
    assert (failed.status, "sha256" in failed.output) == (1, True), failed.output


def test_a_card_says_what_the_model_is_for_and_how_good_it_is(first_run: Ran) -> None:
    card = first_run.project.read("reports/model_card.md")
    accuracy = first_run.project.report("metrics")["test"]["accuracy"]
    for words in (", ".join(DIGITS), first_run.model, f"{100 * accuracy:.1f}", "must not be used for"):
        assert words in card


def test_where_int8_is_off_the_int8_file_is_the_same_file_again(first_run: Ran) -> None:
    assert first_run.project.sha256("models/model.int8.onnx") == first_run.model


def test_try_writes_one_page_that_reaches_no_network(user: Project, tmp_path: Path) -> None:
    runtime = Path.home() / ".cache/regraft/onnxruntime-web-1.30.0"
    if not runtime.exists():
        pytest.skip("ONNX Runtime Web was never fetched on this machine")
    page = tmp_path / "try.html"
    user.succeed(*REGRAFT, "try", "models/model.onnx", "--output", str(page), "--runtime", str(runtime), "--no-open")
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img)[^>]{0,200}(src|href)=.?https?:", text)


def test_try_refuses_a_runtime_whose_bytes_are_not_the_locked_ones(user: Project, tmp_path: Path) -> None:
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / name).write_text("another program")
    page = tmp_path / "try.html"
    ran = user.regraft("try", "models/model.onnx", "--output", str(page), "--runtime", str(tmp_path), "--no-open")
    assert (ran.status, page.exists()) == (1, False), ran.output


@pytest.fixture(scope="module")
def scored(user: Project, photos: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores of the folder, and those after a photo was renamed and one came."""
    user.set_params({"score.photos": "incoming"})
    user.succeed(*REGRAFT, "score")
    before = pd.read_parquet(user.root / "build/scores.parquet").set_index("path")
    (photos / "0.png").rename(photos / "zero.png")
    shutil.copy2(sorted((user.raw / "1").glob("*.png"))[-2], photos / "new.png")
    user.succeed(*REGRAFT, "score")
    return before, pd.read_parquet(user.root / "build/scores.parquet").set_index("path")


def test_score_asks_production_about_new_photos_only_and_a_renamed_one_is_not_new(
    scored: tuple[pd.DataFrame, pd.DataFrame], first_run: Ran
) -> None:
    before, after = scored
    good = ["0.png", "1.png", "6.png", "7.png"]
    assert set(before.loc[good, "model"]) == {first_run.model}
    assert before.loc["broken.jpg", "error"]
    assert after.loc["zero.png", "scored_at"] == before.loc["0.png", "scored_at"]
    assert after.loc["new.png", "scored_at"] > before.loc["0.png", "scored_at"]
    assert before.loc["noise.jpg", "novelty"] > before.loc[good, "novelty"].max()
