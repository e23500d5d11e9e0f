"""`dvc repro` and `regraft retrain` share results, photos are paid once, and a run with nothing to do is short."""

import json
import os
import re
from collections.abc import Callable

import pandas as pd
import pytest

from tests.promises.conftest import DIGITS, PER_CLASS, Ran, moved_to_test
from tests.promises.user import REGRAFT, Project

pytestmark = pytest.mark.flow
HEAVY = {"tensorflow", "keras", "great_expectations", "matplotlib", "sklearn", "prefect", "torch"}
STAGES = ["validate_data", "preprocess", "cache_features", "train_head", "fine_tune", "export_onnx", "evaluate"]

# Says at the very end which of the heavy packages a run has imported.
RUN_AND_ITS_IMPORTS = f"""
import atexit, json, sys
import flows.cli
atexit.register(lambda: print(json.dumps(sorted({HEAVY} & set(sys.modules)))))
sys.argv = ["regraft", "retrain"]
flows.cli.main()
"""


@pytest.fixture(scope="module")
def idle(first_run: Ran, projects: Callable[..., Project]) -> Project:
    """A project in which everything is up to date."""
    return projects(first_run)


def splits_of(project: Project) -> dict[str, str]:
    """Return the split of each photo by its content."""
    photos = pd.read_parquet(project.root / "build/dataset.parquet")
    return {project.sha256(f"data/raw/{row.path}"): str(row.split) for row in photos.itertuples()}


def test_a_first_run_turns_a_folder_of_photos_into_a_tested_model_in_production(first_run: Ran) -> None:
    project = first_run.project
    assert first_run.status == 0
    assert [first_run.outcomes[stage] for stage in STAGES] == ["Ran"] * len(STAGES)
    assert first_run.outcomes["promote_model"] == "Promoted"
    assert project.sha256("models/production/model.onnx") == first_run.model
    test = project.report("metrics")["test"]
    assert 0.6 < test["accuracy"] < test["accuracy_high"] < 1  # chance is 0.25
    assert 0 < test["accuracy_low"] < test["accuracy"]
    assert project.report("features")["computed"] == PER_CLASS * len(DIGITS)
    assert (project.root / "reports/report.html").exists()


def test_what_the_flow_did_dvc_does_not_repeat(idle: Project) -> None:
    assert "up to date" in idle.succeed("dvc", "status").output
    assert "Running stage" not in idle.succeed("dvc", "repro").output


def test_a_run_with_nothing_to_do_says_so_in_seconds_and_imports_nothing_heavy(idle: Project) -> None:
    before = {path: path.stat().st_mtime_ns for path in idle.root.glob("receipts/*.json")}
    started = os.times()
    run = idle.run("python", "-c", RUN_AND_ITS_IMPORTS)
    ended = os.times()
    said, heavy = run.stdout.strip().splitlines()[-2:]
    assert (run.status, "up to date" in said, json.loads(heavy)) == (0, True, [])
    seconds = ended.children_user + ended.children_system - started.children_user - started.children_system
    assert seconds < 8  # 2 on an idle machine
    assert {path: path.stat().st_mtime_ns for path in idle.root.glob("receipts/*.json")} == before


def test_of_new_and_renamed_photos_only_the_new_ones_cost_a_forward_pass(second_run: Ran) -> None:
    receipt = second_run.project.report("features")
    assert (receipt["computed"], receipt["from_store"]) == (3 * receipt["views"], PER_CLASS * 4 * receipt["views"])
    assert len(list(second_run.project.root.glob("data/raw/*/*.png"))) == PER_CLASS * 4 + 3


def test_with_few_new_photos_training_starts_warm_from_the_base_and_says_so(second_run: Ran) -> None:
    assert (second_run.outcomes["train_base"], second_run.outcomes["fine_tune"]) == ("Up to date", "Ran")
    assert "kept" in second_run.project.report("base")["words"]
    assert "warm" in second_run.project.report("fine_tune")["reason"].lower()


def test_photos_never_change_their_split_when_others_come_or_are_renamed(first_run: Ran, second_run: Ran) -> None:
    before, after = splits_of(first_run.project), splits_of(second_run.project)
    assert set(before.values()) == {"train", "val", "test"}
    assert (len(before), len(after)) == (PER_CLASS * 4, PER_CLASS * 4 + 3)
    moved = first_run.project.sha256(f"data/raw/{moved_to_test(first_run)}")
    assert (before.pop(moved), after[moved]) == ("train", "test")  # a person's own choice
    assert {photo: after[photo] for photo in before} == before


def test_a_photo_that_the_base_has_seen_judges_no_model_and_is_counted(first_run: Ran, second_run: Ran) -> None:
    moved = moved_to_test(first_run)
    assert second_run.project.report("base")["left_out"] == {"test": 1}
    judging = [row["path"] for row in second_run.project.table("reports/predictions.csv")]
    assert (moved in judging, len(judging)) == (False, second_run.project.report("metrics")["test"]["images"])


def test_photos_of_one_group_are_in_one_split_also_when_it_grows(first_run: Ran, second_run: Ran) -> None:
    for ran, size in ((first_run, 3), (second_run, 4)):
        splits = splits_of(ran.project)
        table = [row for row in ran.project.table("data/raw/labels.csv") if row["group"] == "patient 6"]
        assert len(table) == size
        assert len({splits[ran.project.sha256(f"data/raw/{row['path']}")] for row in table}) == 1


def test_the_same_inputs_give_the_same_bytes_by_either_runner(idle: Project, first_run: Ran) -> None:
    made = ("models/head.npz", "models/model.npz", "models/model.onnx")
    before = [idle.sha256(path) for path in made]
    ran = idle.succeed(
        "dvc", "repro", "--force", "--single-item", "train_head", "train_base", "fine_tune", "export_onnx"
    )
    assert ran.output.count("Running stage") == 4
    assert [idle.sha256(path) for path in made] == before
    assert before[-1] == first_run.model


def test_a_deleted_model_comes_back_as_it_was_without_computing(idle: Project, first_run: Ran) -> None:
    (idle.root / "models/model.onnx").unlink()
    idle.succeed("dvc", "checkout", "models/model.onnx")
    assert idle.sha256("models/model.onnx") == first_run.model


def test_each_run_leaves_a_receipt_without_paths_users_or_hosts(second_run: Ran) -> None:
    project = second_run.project
    texts = [path.read_text() for path in project.root.glob("receipts/*.json")]
    assert len(texts) == 2
    for text in texts:
        assert str(project.root) not in text
        assert not {os.uname().nodename, os.environ.get("HOME", "/root")} & set(re.findall(r"[^\"\s]+", text))
    assert second_run.model in "".join(texts)
    assert {"params", "versions", "stages"} <= set(project.receipt())


def test_explain_says_why_a_stage_ran(second_run: Ran, environment: dict[str, str]) -> None:
    said = Project(second_run.project.root, environment).succeed(*REGRAFT, "explain").output
    assert re.search(r"validate_data +Ran .*data/raw", said), said
    assert re.search(r"train_base +Up to date", said), said


def test_the_history_has_one_row_for_each_run(second_run: Ran) -> None:
    runs = pd.read_parquet(second_run.project.root / "models/production/history.parquet").sort_values("started")
    assert list(runs.photos) == [PER_CLASS * 4, PER_CLASS * 4 + 3]
    assert (runs.new.iloc[-1], runs.gone.iloc[-1], runs.computed.iloc[-1]) == (3, 0, 3)
    assert (second_run.project.root / "reports/history.html").exists()
