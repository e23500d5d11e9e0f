"""The model in production as a version of a registered model of MLflow; an alias names the version that serves.

A version holds the file itself, to the byte, its signature, its metrics on test and tags for its origin; golden photo
and model card lie beside it. A model that is registered already, as after a rollback, only gets the alias.
"""

import os
import tempfile
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.addresses import without_addresses
from regraft.core.config import Params
from regraft.core.errors import Damaged, RegraftError, safe_text
from regraft.core.files import fingerprint, read_json, sha256_of, write_text
from regraft.onnx_graphs.parsing import parse_graph
from regraft.production.records import Records
from regraft.serving.shipped_model import ShippedModel

_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_LONGEST = 500  # characters of an error of MLflow
# Unless the environment has them. MLflow waits five minutes for a server that does not answer; one is enough.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def register(params: Params) -> list[str]:
    """Register the model in production, if `promote.mlflow` names a registry that does not have it; return warnings."""
    settings, records = params.promote.mlflow, Records(params.paths.production)
    digest = records.digest if settings else None
    if settings is None or digest is None:
        return []
    note, state = Path(".dvc", "tmp", "regraft", "mlflow.registered"), fingerprint([settings.model_dump(), digest])
    if note.is_file() and note.read_text(encoding="utf-8") == state:
        return []
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        mlflow: Any = import_module("mlflow")
        import_module("mlflow.onnx")
        if settings.tracking_uri:
            mlflow.set_tracking_uri(settings.tracking_uri)
        client = mlflow.MlflowClient()
        found = client.search_model_versions(f"name = '{settings.name}'")
        known = [int(version.version) for version in found if version.tags.get("sha256") == digest]
        version = max(known) if known else _log(params, mlflow, records, digest)
        client.set_registered_model_alias(settings.name, settings.alias, str(version))
        write_text(note, state)
    except Exception as error:  # MLflow, its store and its server raise whatever they like
        missing = isinstance(error, ImportError)
        reason = (
            f"{error.name} is not installed: pip install mlflow-skinny" if missing else " ".join(str(error).split())
        )
        reason = safe_text(without_addresses(reason))[:_LONGEST]  # an address may have a password
        return [f"Warning: promote.mlflow failed ({reason}). Production is unchanged; the next run tries again."]
    print(f"MLflow: {settings.alias} of {settings.name} is version {version}, model {digest[:12]}.", flush=True)
    return []


def _log(params: Params, mlflow: Any, records: Records, digest: str) -> int:
    """Log the model in a run of MLflow, register it, and return its version."""
    settings, model = params.promote.mlflow, ShippedModel(records.model)
    assert settings
    if settings.experiment:
        mlflow.set_experiment(settings.experiment)
    change = next(change for change in reversed(records.history()) if change.sha256 == digest)
    origin = change.origin
    tags = {
        "sha256": digest,
        "git_revision": origin and origin.revision,
        "data_md5": origin and origin.data,
        "verdict": origin and origin.verdict,
        "words": change.words[:1000],
        "approved_by": change.approved_by,
    }
    tags = {name: value for name, value in tags.items() if value}
    with mlflow.start_run(run_name=f"{settings.name} {digest[:12]}", tags=tags):
        mlflow.log_metrics(_metrics(params, digest))
        logged = mlflow.onnx.log_model(
            parse_graph(model.contents),
            name="model",
            signature=mlflow.models.ModelSignature(
                _schema(mlflow, model.session.get_inputs()), _schema(mlflow, model.session.get_outputs())
            ),
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,  # one file, with the bytes that the gate judged
            # Given, because MLflow would load the model to find out.
            pip_requirements=[f"{name}=={version_of(name)}" for name in ("onnx", "onnxruntime", "numpy")],
        )
        for name in ("golden.json", "model_card.md"):
            if (path := records.model.with_name(name)).is_file():
                mlflow.log_artifact(str(path), "served")
    with tempfile.TemporaryDirectory(prefix="regraft-mlflow-") as folder:
        copy = Path(mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=folder)) / "model.onnx"
        if sha256_of(copy) != digest:
            raise RegraftError("the copy in MLflow has other bytes than the model in production; it is not registered.")
    return int(mlflow.register_model(logged.model_uri, settings.name, tags=tags).version)


def _metrics(params: Params, digest: str) -> dict[str, float]:
    """Return the metrics on test, if they are those of this file."""
    try:
        exported = read_json(params.paths.reports / "export.json", "sha256")
        test = read_json(params.paths.reports / "metrics.json", "test")["test"]
    except (FileNotFoundError, Damaged):
        return {}
    if exported["sha256"] != digest:
        return {}
    return {f"test_{name}": float(value) for name, value in test.items() if isinstance(value, int | float)}


def _schema(mlflow: Any, nodes: list[Any]) -> Any:
    def spec(node: Any) -> Any:
        shape = [size if isinstance(size, int) else -1 for size in node.shape]
        return mlflow.types.TensorSpec(np.dtype(_TYPES[node.type]), shape, node.name)

    return mlflow.types.Schema([spec(node) for node in nodes])
