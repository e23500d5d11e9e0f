"""The real pipeline on 300 real digits, as a Prefect server shows it: a first run, and one whose model is worse.

Each fixture is the next event in the life of one project. Tests look at what was seen right after an event.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regraft.core.files import sha256_of
from regraft.photos.dataset import read_dataset
from tests.support.pipeline import STAGES
from tests.support.prefect_server import FlowRun, Server, last_flow_run
from tests.support.project import REGRAFT, Project

pytestmark = pytest.mark.flow
PER_CLASS, CLASSES = 30, 10


@dataclass(frozen=True)
class Event:
    """What was seen after a command."""

    status: int
    output: str
    reports: dict[str, Any]  # by name, of those in JSON
    model: str  # SHA-256
    production: str
    flow_run: FlowRun | None  # where the run reported to a server


def _see(project: Project, *command: str, server: Server | None = None) -> Event:
    """Run a command, which reports to a server if one is given, and look at what it left behind."""
    ran = project.run(*command, **({"PREFECT_API_URL": server.api} if server else {}))
    models, reports = project.root / "models", (project.root / "reports").glob("*.json")
    assert (models / "model.onnx").exists(), ran.output
    return Event(
        ran.status,
        ran.output,
        {path.stem: json.loads(path.read_text()) for path in reports},
        sha256_of(models / "model.onnx"),
        sha256_of(models / "production" / "model.onnx"),
        last_flow_run(server) if server else None,
    )


def _add_digits(project: Project, which: str = "digits", *, keep: int) -> None:
    """Write the demo's digits, and keep the first so many of each class."""
    project.succeed(*REGRAFT, "table", f"demo:{which}")
    for number in range(CLASSES):
        for path in sorted((project.root / "data/raw" / str(number)).glob("*.png"))[keep:]:
            path.unlink()


@pytest.fixture(scope="module")
def project(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The real source in a new git repository, with a few digits, small images and few epochs."""
    folder = tmp_path_factory.mktemp("retrain") / "project"
    folder.mkdir()
    project = Project(folder, environment, patience=240)
    project.copy_source(["regraft", "tasks", "flows", "expectations"])
    project.copy_source(
        ["params.yaml", "dvc.yaml", "prefect.yaml", "pyproject.toml", "requirements.lock", ".gitignore", ".dvcignore"]
    )
    project.succeed("git", "init", "--quiet")
    project.succeed("dvc", "init", "--quiet")
    _add_digits(project, keep=PER_CLASS)
    project.set_param("backbone.image_size", 64)
    project.set_param("backbone.cut", "block13_add")  # TensorFlow takes seconds to trace each block above it
    project.set_param("cache_features.views", 0)
    project.set_param("fine_tune.epochs", 1)
    project.judge_by_one_photo()
    project.set_param("promote.when_undecided", "promote")
    project.set_param("preprocess.test_share", 0.25)  # so that none of the small classes lacks a test photo
    yield project
    project.end()


@pytest.fixture(scope="module")
def trained(project: Project, server: Server) -> Event:
    """The first run, which reports to a server."""
    return _see(project, *REGRAFT, "retrain", server=server)


def test_the_first_run_succeeds(trained: Event) -> None:
    assert trained.status == 0, trained.output


def test_in_the_first_run_every_stage_runs(trained: Event) -> None:
    expected = {"record_data": "Recorded", **dict.fromkeys(["record_code", *STAGES], "Ran")}
    expected |= {"promote_model": "Promoted", "write_report": "Written"}
    assert trained.flow_run
    assert trained.flow_run.task_states == expected


def test_the_list_of_runs_says_when_what_and_how_good(trained: Event) -> None:
    assert trained.flow_run
    accuracy = trained.reports["metrics"]["test"]["accuracy"]
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d promoted {accuracy:.3f}( \(\+\d+ photos\))?", trained.flow_run.name)
    assert {tag.partition(":")[0] for tag in trained.flow_run.tags} >= {"data"}


def test_the_metrics_are_those_of_the_test_split_and_of_both_trainings(trained: Event) -> None:
    metrics = trained.reports["metrics"]
    assert list(metrics) == ["test", "head", "fine_tune"]
    assert set(metrics["test"]) == {
        "images",
        "independent_images",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "top5_accuracy",
        "macro_f1",
        "log_loss",
        "brier",
        "ece",
        "ece_by_chance",
    }


def test_the_model_has_learnt_from_the_digits(trained: Event) -> None:
    """Ten classes: chance is 0.1. So few photos and epochs give about 0.8."""
    assert trained.reports["metrics"]["test"]["accuracy"] > 0.5


def test_the_receipt_has_its_agreed_keys_and_no_others(trained: Event) -> None:
    expected = {"images", "views", "rows", "from_store", "computed", "seconds", "images_per_second"}
    expected |= {"seconds_saved", "store_bytes", "engine", "from_features_file", "computed_again"}
    assert set(trained.reports["features"]) == expected | {"photos_fetched", "bytes_fetched"}


def test_the_first_run_computes_every_view_of_every_image(trained: Event) -> None:
    receipt = trained.reports["features"]
    assert (receipt["computed"], receipt["from_store"]) == (PER_CLASS * CLASSES * receipt["views"], 0)


def test_the_first_model_goes_into_production(trained: Event) -> None:
    assert trained.production == trained.model


@pytest.fixture(scope="module")
def refused(project: Project, server: Server, trained: Event) -> Event:
    """A run after every photo of train and val was put into the next class; those of test keep their labels."""
    _shift_labels(project.root / "data/raw", project.root / "build/dataset.parquet")
    project.set_param("fine_tune.mode", "off")  # a head is enough to be worse
    return _see(project, *REGRAFT, "retrain", server=server)


def test_a_worse_model_is_refused_by_name(refused: Event) -> None:
    assert refused.flow_run
    assert (refused.flow_run.state, refused.flow_run.task_states["promote_model"]) == ("Refused", "Refused")


def test_a_run_whose_model_is_refused_has_exit_status_2(refused: Event) -> None:
    assert refused.status == 2, refused.output


def test_a_refused_model_leaves_production_as_it_was(refused: Event, trained: Event) -> None:
    assert refused.production == trained.production


def _shift_labels(raw: Path, dataset: Path) -> None:
    for row in read_dataset(dataset, raw).of("train", "val").rows.itertuples():
        path = raw / str(row.path)
        path.rename(raw / str((int(row.class_name) + 1) % CLASSES) / f"shifted-{path.name}")
