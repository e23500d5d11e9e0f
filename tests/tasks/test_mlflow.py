"""MLflow's registry: the version that serves is the file that was promoted, and it answers there as it does here."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from regraft.core.errors import InvalidParams
from regraft.core.files import sha256_of, write_json
from regraft.core.params_file import load_params
from regraft.production.records import Records
from regraft.production.registry import Production
from regraft.serving.shipped_model import ShippedModel
from tasks.after_promotion import register
from tests.support.served import promote_and_serve

ROOT = Path(__file__).parents[2]
NAME = {"experiment": "regraft", "name": "classifier", "alias": "production"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/production of a project that is the current folder, with one model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    promote_and_serve(tmp_path / "models" / "production", 1.0)
    return tmp_path / "models" / "production"


def registered(uri: str | None) -> list[str]:
    """The warnings of a registration in the current folder."""
    yaml, path = YAML(), Path("params.yaml")
    contents = yaml.load(path)
    contents["promote"]["mlflow"] = {"tracking_uri": uri, **NAME}
    yaml.dump(contents, path)
    params = load_params(path)
    records = Records(params.paths.production)
    return register(params, records, str(records.digest))


@pytest.mark.flow
@pytest.mark.filterwarnings("default")  # MLflow warns of its own type hints, and of versions that it deprecates
def test_what_serves_is_in_the_registry_to_the_byte_with_its_figures_and_follows_a_rollback(folder, tmp_path, capsys):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    one = sha256_of(folder / "model.onnx")
    write_json(tmp_path / "reports" / "export.json", {"sha256": one})
    write_json(tmp_path / "reports" / "metrics.json", {"test": {"accuracy": 0.9, "images": 10, "matrix": [1]}})
    assert registered(uri) == []
    assert capsys.readouterr().out.endswith(f"MLflow: production of classifier is version 1, model {one[:12]}.\n")
    assert registered(uri) == []
    assert "MLflow" not in capsys.readouterr().out  # asked once

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("classifier", "production")
    assert version.tags["sha256"] == one
    run = client.get_run(version.run_id)
    assert run.data.metrics == {"test_accuracy": 0.9, "test_images": 10.0}
    assert [file.path for file in client.list_artifacts(run.info.run_id, "served")] == ["served/golden.json"]
    path = mlflow.artifacts.download_artifacts("models:/classifier@production", dst_path=str(tmp_path / "d"))
    assert sha256_of(Path(path) / "model.onnx") == one

    photo = np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8)
    said = mlflow.pyfunc.load_model("models:/classifier@production").predict(photo[None])
    assert set(said) == {"probabilities", "features", "novelty"}
    answer = ShippedModel(folder / "model.onnx").ask(photo)
    np.testing.assert_allclose(said["probabilities"][0], answer.probabilities, atol=1e-6)
    assert mlflow.onnx.load_model("models:/classifier@production").graph.name == "colour"

    promote_and_serve(folder, 2.0)
    assert registered(uri) == []
    assert "is version 2" in capsys.readouterr().out
    assert client.get_run(client.get_model_version("classifier", "2").run_id).data.metrics == {}  # of another file
    Production(folder).rollback()
    assert registered(uri) == []
    assert "is version 1" in capsys.readouterr().out
    assert client.get_model_version_by_alias("classifier", "production").version in ("1", 1)


def test_without_the_package_the_warning_says_what_to_install_and_production_stays(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    (sentence,) = registered(None)
    assert sentence.startswith("Warning: promote.mlflow failed")
    assert "mlflow is not installed: pip install mlflow-skinny" in sentence
    assert Production(folder).standing().problem is None


def test_a_server_that_does_not_answer_is_a_warning_without_its_address(folder, monkeypatch):
    pytest.importorskip("mlflow").set_tracking_uri(None)  # which a test before may have set
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    (sentence,) = registered(None)
    assert sentence.startswith("Warning: promote.mlflow failed")
    assert "secret" not in sentence


@pytest.mark.parametrize(
    "uri", ["http://user:pass@host:5000", "http://host?token=a", "postgresql://u:p@h/db", "", "http://host#a", "a b"]
)
def test_an_address_that_may_hold_a_secret_is_refused_in_params(folder, uri):
    with pytest.raises(InvalidParams, match="without user, password and query") as refused:
        registered(uri)
    assert "pass" not in str(refused.value).replace("password", "")
