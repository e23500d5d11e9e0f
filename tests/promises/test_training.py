"""A worker that keeps nothing: photos and store in a bucket, features on Dask, a kill, and the same bytes once more.

The network is small, the user's own, and trained from pixels in all its layers.
"""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from tests.promises.conftest import Ran
from tests.promises.user import REGRAFT, Command, Project, sha256_of, take_digits

pytestmark = pytest.mark.flow
SETTINGS = {
    "backbone.name": "own.keras",
    "backbone.weights": "own",
    "backbone.image_size": 32,
    "backbone.cut": "second",
    "fine_tune.layers": "all",
    "fine_tune.epochs": 12,
    "train_head.kind": "classic",
    "train_head.epochs": 10,
    "machine.cluster": "local:2",
    "machine.shared_store": "s3://promised/store",
    "nights.branch": "regraft/nightly",
    "nights.push": "origin",
}
OWN_BACKBONE = """
import keras
from keras import layers
keras.utils.set_random_seed(1)
keras.Sequential([
    keras.Input((32, 32, 3)),
    layers.Rescaling(1 / 255),
    layers.Conv2D(16, 3, strides=2, activation="relu", name="first"),
    layers.Conv2D(32, 3, strides=2, activation="relu", name="second"),
    layers.Conv2D(64, 3, strides=2, activation="relu", name="third"),
]).save("own.keras")
"""
PHOTOS = 40


@pytest.fixture(scope="module")
def bucket(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The variables of a command that finds an S3 server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield environment | {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-bucket",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


def upload(project: Project, folder: Path) -> None:
    """Put a folder of photos into the bucket."""
    code = "import fsspec, sys; s3 = fsspec.filesystem('s3'); s3.makedirs('promised', exist_ok=True); "
    project.succeed("python", "-c", code + "s3.put(sys.argv[1] + '/', 'promised/photos/', recursive=True)", str(folder))


class Worker:
    """What a worker saw: it is killed in the last training, goes on, and everything is made once more."""

    def __init__(self, project: Project, digits: Path) -> None:
        self.project = project
        self._set_up()
        self.photos = project.root.parent / "photos"
        take_digits(digits, self.photos, "01", 0, PHOTOS // 2)
        upload(project, self.photos)
        self.table = project.regraft("table", "s3://promised/photos")
        self.listed = project.table("data/raw/labels.csv")
        self.killed = self._kill_in_training()
        self.checkpoints = [path.name for path in (project.root / "build/base").rglob("*") if path.is_file()]
        self.fetched = project.report("features")
        self.validated = project.report("validation")
        project.set_params({"machine.cluster": None})
        project.succeed("git", "commit", "--quiet", "--all", "--message", "Without Dask")
        self.resumed = project.regraft("retrain", "--commit")
        self.model = project.sha256("models/model.onnx")
        self.again = project.regraft("reproduce", "-1")

    def _set_up(self) -> None:
        """Give the project a backbone of its own, and what the runs of a worker are pushed to."""
        project, origin = self.project, str(self.project.root.parent / "origin.git")
        project.succeed("python", "-c", OWN_BACKBONE)
        project.succeed("dvc", "remote", "add", "--default", "there", str(project.root.parent / "dvc-remote"))
        project.succeed("git", "init", "--quiet", "--bare", "--initial-branch", "main", origin)
        project.succeed("git", "checkout", "--quiet", "-b", "main")
        project.succeed("git", "remote", "add", "origin", origin)
        project.succeed("git", "add", ".")
        project.succeed("git", "commit", "--quiet", "--message", "A project")
        project.succeed("git", "push", "--quiet", "origin", "main")

    def _kill_in_training(self) -> Command:
        command = self.project.start("dvc", "repro")
        folder = self.project.root / "build" / "base"
        command.wait_until(lambda: any(path.is_file() for path in folder.rglob("*")), "an epoch of training is over")
        command.kill()
        return command


@pytest.fixture(scope="module")
def worker(projects: Callable[..., Project], bucket: dict[str, str], digits: Path) -> Worker:
    """The story of the worker."""
    project = projects(settings=SETTINGS)
    project.environment = bucket
    return Worker(project, digits)


def test_a_table_of_a_bucket_has_an_address_and_an_etag_for_each_photo(worker: Worker) -> None:
    assert worker.table.status == 0, worker.table.output
    assert len(worker.listed) == PHOTOS
    assert all(row["path"].startswith("s3://promised/photos/") and row["etag"] for row in worker.listed)
    assert [path.name for path in worker.project.raw.rglob("*") if path.is_file()] == ["labels.csv"]


def test_photos_in_a_bucket_are_fetched_once_and_read_where_they_are(worker: Worker) -> None:
    assert (worker.fetched["computed"], worker.fetched["from_store"]) == (PHOTOS, 0)
    assert worker.validated["photos_fetched"] + worker.fetched["photos_fetched"] == PHOTOS


def test_training_goes_on_after_a_kill_by_the_other_runner_without_repeating_what_was_done(worker: Worker) -> None:
    assert worker.killed.process.returncode < 0
    assert worker.checkpoints
    assert worker.resumed.status == 0, worker.resumed.output
    for stage in ("validate_data", "preprocess", "cache_features", "train_head"):
        assert f"{stage}: Up to date" in worker.resumed.output
    assert "train_base: Ran" in worker.resumed.output


def test_reproduce_makes_the_same_bytes_without_dask_store_and_kill(worker: Worker) -> None:
    assert worker.again.status == 0, worker.again.output
    assert worker.again.stdout.count(worker.model) == 2


def kernels_of(model: Path) -> dict[tuple[int, ...], np.ndarray]:
    """Return the tensors of a model that ships, by their shapes."""
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(model).graph.initializer]
    return {tensor.shape: tensor for tensor in tensors}


def test_all_layers_of_a_backbone_of_ones_own_are_trained_by_its_name_alone(worker: Worker) -> None:
    assert worker.project.report("export")["trained"] == "all"
    shipped = kernels_of(worker.project.root / "models/model.onnx")
    with zipfile.ZipFile(worker.project.root / "own.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    for layer in ("conv2d_1", "conv2d_2"):
        own = weights[f"layers/{layer}/vars/0"][()].transpose(3, 2, 0, 1)
        assert 1e-5 < np.abs(shipped[own.shape] - own).max() < 0.5


def test_a_keras_file_that_brings_code_is_refused(worker: Worker) -> None:
    project = worker.project
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None, "closure": None}}
    with zipfile.ZipFile(project.root / "own.keras") as own:
        parts = {name: own.read(name) for name in own.namelist()}
    config = json.loads(parts["config.json"])
    layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Conv2D")
    layer.update(class_name="Lambda", config={"name": "first", "function": code})
    with zipfile.ZipFile(project.root / "other.keras", "w") as other:
        for name, contents in (parts | {"config.json": json.dumps(config)}).items():
            other.writestr(name, contents)
    ran = project.regraft("backbones", "other.keras")
    assert (ran.status, "other.keras" in ran.output, "Lambda" in ran.output) == (1, True, True), ran.output


def test_the_classic_head_is_the_seeds_recipe_of_1024_relu_units_and_rmsprop(worker: Worker) -> None:
    assert {(64, 1024), (1024, 2)} <= kernels_of(worker.project.root / "models/model.onnx").keys()
    (row,) = worker.project.table("reports/leaderboard.csv")
    assert (row["hidden_units"], row["activation"], row["optimizer"]) == ("1024", "relu", "rmsprop")


@pytest.fixture(scope="module")
def fresh(worker: Worker, digits: Path) -> Project:
    """A machine that has nothing but git and what workers share, once one more photo is in the bucket."""
    folder = worker.project.root.parent / "fresh"
    folder.mkdir()
    worker.project.succeed("git", "clone", "--quiet", str(folder.parent / "origin.git"), str(folder / "project"))
    clone = Project(folder / "project", worker.project.environment)
    clone.set_params({"machine.cluster": None})
    clone.succeed(*REGRAFT, "pull")
    photos = folder.parent / "more"
    take_digits(digits, photos, "0", PHOTOS, PHOTOS + 1)
    upload(clone, photos)
    return clone


def test_pull_brings_a_fresh_worker_what_the_last_one_made(worker: Worker, fresh: Project) -> None:
    assert fresh.sha256("models/model.onnx") == worker.model
    assert fresh.read("dvc.lock") == worker.project.read("dvc.lock")
    assert [path.name for path in fresh.root.glob("receipts/*.json")]


def test_a_fresh_worker_fetches_and_computes_only_what_is_new(fresh: Project) -> None:
    fresh.succeed(*REGRAFT, "table", "s3://promised/photos", "--replace")
    fresh.succeed("dvc", "repro", "cache_features")
    validated, computed = fresh.report("validation"), fresh.report("features")
    assert (validated["photos_decoded"], validated["photos_fetched"] + computed["photos_fetched"]) == (1, 1)
    assert (computed["computed"], computed["from_store"]) == (1, PHOTOS)


def test_a_damaged_store_costs_time_and_changes_no_result(fresh: Project) -> None:
    before = fresh.sha256("build/features.arrow")
    for path in (fresh.root / "build/store").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            contents = bytearray(path.read_bytes())
            contents[len(contents) // 2] ^= 255
            path.write_bytes(contents)
    fresh.succeed("dvc", "repro", "--force", "--single-item", "cache_features")
    assert fresh.sha256("build/features.arrow") == before


def test_int8_ships_only_where_its_loss_is_shown_to_be_within_the_budget(worker: Worker) -> None:
    project, shipped = worker.project, worker.project.root / "models/model.int8.onnx"
    project.set_params({"quantise.mode": "auto"})
    project.succeed("dvc", "repro", "--single-item", "quantise")
    assert sha256_of(shipped) == worker.model  # so few photos show nothing
    project.set_params({"quantise.budget": 0.9})
    project.succeed("dvc", "repro", "--single-item", "quantise")
    kinds = {tensor.data_type for tensor in onnx.load(shipped).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert shipped.stat().st_size < (project.root / "models/model.onnx").stat().st_size


def test_no_file_that_a_run_leaves_holds_a_secret_of_the_environment(worker: Worker) -> None:
    secret = worker.project.environment["AWS_SECRET_ACCESS_KEY"].encode()
    root = worker.project.root
    left = [path for path in root.rglob("*") if path.is_file() and ".dvc/cache" not in str(path)]
    assert [path for path in left if secret in path.read_bytes()] == []
    for command in (worker.table, worker.resumed, worker.again):
        assert secret.decode() not in command.output


def test_an_address_that_could_hold_a_secret_is_refused_and_not_quoted(worker: Worker) -> None:
    with (worker.project.raw / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], ["s3://promised/a.jpg?token=hush-hush", "0"]])
    ran = worker.project.regraft("retrain")
    assert (ran.status, "hush-hush" in ran.output, "labels.csv" in ran.output) == (1, False, True), ran.output


def test_the_report_of_the_head_says_whether_transfer_works_and_more_photos_would_help(first_run: Ran) -> None:
    project = first_run.project
    report = project.report("head")
    assert (len(report["learning_curve"]), "nearest_neighbours" in report["probes"]) == (3, True)
    assert "Transfer works" in " ".join(report["words"])
    assert "more photos" in " ".join(report["words"])


def test_a_sweep_of_heads_is_trained_and_the_best_on_val_ships(first_run: Ran) -> None:
    tried = first_run.project.table("reports/leaderboard.csv")
    losses = [float(row["val_log_loss"]) for row in tried]
    assert len(losses) == 3
    assert first_run.project.report("head")["val"]["log_loss"] == min(losses)


def test_the_top_layers_are_trained_on_the_cached_activations(first_run: Ran) -> None:
    report = first_run.project.report("fine_tune")
    assert (report["trained"], report["is_used"]) == ("top", True)
    assert "Shipped weights" in report["reason"]
