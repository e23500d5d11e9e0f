"""The real pipeline on 300 real digits, from an empty folder to a model in production: one story, told by both runners.

Each fixture is the next event in the life of one project. Tests look at what was seen right after an event.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regraft.files import sha256_of
from regraft.photos.dataset import read_dataset
from tests.support.pipeline import STAGES
from tests.support.prefect_server import FlowRun, Server, last_flow_run
from tests.support.project import REGRAFT, Project

pytestmark = pytest.mark.flow
PER_CLASS, NEW_PER_CLASS, CLASSES = 30, 1, 10
HEAVY = {"tensorflow", "keras", "great_expectations", "matplotlib", "sklearn", "prefect"}

# Says at the very end which of the heavy packages a run has imported.
RUN_AND_ITS_IMPORTS = f"""
import atexit, json, sys
import flows.cli
atexit.register(lambda: print(json.dumps(sorted({HEAVY} & set(sys.modules)))))
sys.argv = ["regraft", "retrain"]
flows.cli.main()
"""


@dataclass(frozen=True)
class Event:
    """What was seen after a command."""

    status: int
    output: str
    reports: dict[str, Any]  # by name, of those in JSON
    model: str  # SHA-256
    production: str
    flow_run: FlowRun | None  # where the run reported to a server

    @property
    def states(self) -> dict[str, str]:
        """The outcome of every step, as a run without a server prints it."""
        return dict(re.findall(r"^(\w+): ([A-Z][a-z ]+)$", self.output, re.M))


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


def _add_digits(project: Project, *options: str, keep: int) -> None:
    """Write the demo's digits, and keep the first so many of each class."""
    project.succeed(*REGRAFT, "demo-data", *options)
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
    project.set_param("backbone.image_size", 96)
    project.set_param("backbone.cut", "block13_add")  # TensorFlow takes seconds to trace each block above it
    project.set_param("cache_features.views", 0)
    project.set_param("fine_tune.epochs", 1)
    project.set_param("train_head.epochs", 10)
    project.set_param("promote.min_photos", 1)
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


@dataclass(frozen=True)
class Dvc:
    """What dvc said after the first run."""

    status: str
    repro: str


@pytest.fixture(scope="module")
def asked_dvc(project: Project, trained: Event) -> Dvc:
    """The other runner after the first run."""
    return Dvc(project.succeed("dvc", "status").output, project.succeed("dvc", "repro").output)


def test_after_the_flow_dvc_status_is_clean(asked_dvc: Dvc) -> None:
    assert asked_dvc.status.strip() == "Data and pipelines are up to date."


def test_after_the_flow_dvc_repro_runs_nothing(asked_dvc: Dvc) -> None:
    assert [line for line in asked_dvc.repro.splitlines() if line.startswith("Running stage")] == []


@pytest.fixture(scope="module")
def repeated(project: Project, server: Server, asked_dvc: Dvc) -> Event:
    """A run with nothing to do."""
    return _see(project, "python", "-c", RUN_AND_ITS_IMPORTS, server=server)


def test_a_run_with_nothing_to_do_says_so_and_imports_nothing_heavy(repeated: Event) -> None:
    said, heavy = repeated.output.strip().splitlines()
    assert repeated.status == 0
    assert said == "every stage is up to date, and this very file is in production already."
    assert json.loads(heavy) == []


@pytest.fixture(scope="module")
def restored(project: Project, repeated: Event) -> Event:
    """A run after the model was deleted."""
    (project.root / "models/model.onnx").unlink()
    return _see(project, *REGRAFT, "retrain")


def test_a_deleted_model_is_restored_as_it_was(restored: Event, trained: Event) -> None:
    assert restored.model == trained.model


def test_a_deleted_model_is_restored_without_computing(restored: Event) -> None:
    states = {name: state for name, state in restored.states.items() if name in STAGES}
    assert states == dict.fromkeys(STAGES, "Up to date") | {"export_onnx": "Restored"}


@pytest.fixture(scope="module")
def exported_again(project: Project, restored: Event) -> Event:
    """A forced second export, in another process and by the other runner."""
    return _see(project, "dvc", "repro", "--force", "--single-item", "export_onnx")


def test_the_other_runner_exports_the_same_bytes(exported_again: Event, trained: Event) -> None:
    assert "Running stage 'export_onnx'" in exported_again.output
    assert exported_again.model == trained.model


@pytest.fixture(scope="module")
def rolled_back_too_early(project: Project, exported_again: Event) -> Event:
    """A rollback when there was one model only."""
    return _see(project, *REGRAFT, "promote", "--rollback")


def test_a_rollback_without_an_earlier_model_says_why_not(rolled_back_too_early: Event) -> None:
    assert rolled_back_too_early.status == 1
    assert "promote stopped: there is no earlier model" in rolled_back_too_early.output


def test_a_rollback_without_an_earlier_model_leaves_production_as_it_is(
    rolled_back_too_early: Event, trained: Event
) -> None:
    assert rolled_back_too_early.production == trained.production


@pytest.fixture(scope="module")
def grown(project: Project, rolled_back_too_early: Event) -> Event:
    """A run with ten more digits, whose model is promoted in any case."""
    _add_digits(project, "--more", keep=PER_CLASS + NEW_PER_CLASS)
    project.set_param("promote.max_loss", 1.0)
    return _see(project, *REGRAFT, "retrain")


def test_of_new_images_only_they_cost_a_forward_pass(grown: Event) -> None:
    receipt = grown.reports["features"]
    assert receipt["computed"] == NEW_PER_CLASS * CLASSES * receipt["views"]


def test_images_seen_before_come_from_the_store(grown: Event) -> None:
    receipt = grown.reports["features"]
    assert receipt["from_store"] == PER_CLASS * CLASSES * receipt["views"]


def test_with_few_new_images_the_base_stays_and_only_they_are_learnt_with_some_of_those_it_knows(grown: Event) -> None:
    assert (grown.states["train_base"], grown.states["fine_tune"]) == ("Up to date", "Ran")
    assert grown.reports["base"]["words"].startswith("The base is kept: ")
    assert grown.reports["fine_tune"]["reason"].startswith("A warm run: ")


def test_an_accepted_model_takes_the_place_of_the_one_in_production(grown: Event, trained: Event) -> None:
    assert grown.production == grown.model != trained.model


@pytest.fixture(scope="module")
def rolled_back(project: Project, grown: Event) -> Event:
    """A rollback to the first model."""
    return _see(project, *REGRAFT, "promote", "--rollback")


def test_a_rollback_puts_the_earlier_model_back_into_production(rolled_back: Event, trained: Event) -> None:
    assert rolled_back.production == trained.model


def test_a_rollback_leaves_the_new_model_where_it_is(rolled_back: Event, grown: Event) -> None:
    assert rolled_back.model == grown.model


@pytest.fixture(scope="module")
def kept_out(project: Project, rolled_back: Event) -> Event:
    """The next night's run, in which nothing is new."""
    return _see(project, *REGRAFT, "retrain")


def test_the_next_run_does_not_promote_what_was_rolled_back_from(kept_out: Event, trained: Event) -> None:
    assert (kept_out.status, kept_out.production) == (2, trained.model)
    assert "Refused: a person decided against this very model. It was rolled back from at 2" in kept_out.output


@pytest.fixture(scope="module")
def refused(project: Project, server: Server, kept_out: Event) -> Event:
    """A run after every photo of train and val was put into the next class; those of test keep their labels."""
    _shift_labels(project.root / "data/raw", project.root / "build/dataset.parquet")
    project.set_param("promote.max_loss", 0.03)
    project.set_param("fine_tune.mode", "off")  # a head is enough to be worse
    return _see(project, *REGRAFT, "retrain", server=server)


def test_a_worse_model_is_refused_by_name(refused: Event) -> None:
    assert refused.flow_run
    assert (refused.flow_run.state, refused.flow_run.task_states["promote_model"]) == ("Refused", "Refused")


def test_a_run_whose_model_is_refused_has_exit_status_2(refused: Event) -> None:
    assert refused.status == 2, refused.output


def test_a_refused_model_leaves_production_as_it_was(refused: Event, kept_out: Event) -> None:
    assert refused.production == kept_out.production


def _shift_labels(raw: Path, dataset: Path) -> None:
    for row in read_dataset(dataset, raw).of("train", "val").rows.itertuples():
        path = raw / str(row.path)
        path.rename(raw / str((int(row.class_name) + 1) % CLASSES) / f"shifted-{path.name}")
