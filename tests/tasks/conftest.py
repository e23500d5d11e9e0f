"""All stages on a small project: 72 generated photos, a random backbone at 64 pixels, two epochs each."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from regraft.core.config import Params
from regraft.core.params_file import load_params
from regraft.production.gate import rule
from regraft.training import training_loop
from tasks.cache_features import cache_features
from tasks.check_features import check_features
from tasks.choose_base import choose_base
from tasks.evaluate import evaluate
from tasks.export_onnx import export_onnx
from tasks.fine_tune import fine_tune
from tasks.preprocess import preprocess
from tasks.quantise import quantise
from tasks.train_base import train_base
from tasks.train_head import train_head
from tasks.validate_data import validate_data
from tests.support.small_project import changed, quiet, write_photos

ROOT = Path(__file__).parents[2]
STAGES = [validate_data, preprocess, cache_features, check_features, train_head, choose_base, train_base, fine_tune]
STAGES += [export_onnx, quantise, evaluate]


@pytest.fixture(scope="session")
def small_params() -> Params:
    return changed(
        load_params(ROOT / "params.yaml"),
        # A late cut: TensorFlow takes seconds to trace each block above it.
        backbone={"weights": None, "image_size": 64, "cut": "block13_add"},
        cache_features={"views": 0},
        preprocess={"val_share": 0.25, "test_share": 0.25},
        fine_tune={"epochs": 2},
        evaluate={"target_precision": 0.3},  # what two epochs and 20 val photos can promise
        # What the gate cannot decide on a handful of photos goes into production.
        promote={"when_undecided": "promote"},
    )


@pytest.fixture(scope="session", autouse=True)
def _small_numbers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop, "BATCH_SIZE", 4)  # enough steps to learn in two epochs
        patch.setattr(rule, "MIN_PHOTOS", 1)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small_params: Params, for_all_workers: Path) -> Path:
    """A project in which every stage has run once; look, but do not touch."""
    finished = for_all_workers / "finished"
    with FileLock(for_all_workers / "finished.lock"):
        if not finished.exists():
            folder = tmp_path_factory.mktemp("finished")
            write_photos(folder / "data" / "raw")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                for stage in STAGES:
                    stage.function(small_params, quiet)
            folder.rename(finished)
    return finished


@pytest.fixture
def project(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project, as the current folder."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"
