"""What follows a change of production: the files beside the model, and MLflow's registry.

Nothing here undoes or blocks a promotion: a failure is a warning of the run, and the next run writes what is missing,
whatever the gate decides then.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.addresses import without_addresses
from regraft.core.config import Params
from regraft.core.errors import Damaged, RegraftError, safe_text
from regraft.core.files import fingerprint, read_json, replacing, sha256_of, write_text
from regraft.onnx_graphs.parsing import parse_graph
from regraft.production.exclusive import PATIENCE_SECONDS, publish
from regraft.production.records import Records
from regraft.reports.model_card import FILE as CARD
from regraft.serving.golden import FILE as GOLDEN
from regraft.serving.golden import write_golden
from regraft.serving.shipped_model import ShippedModel
from tasks.report import write_card

_LONGEST = 500  # characters of an error of MLflow
# Unless the environment has them. MLflow waits five minutes for a server that does not answer; one is enough.
_MLFLOW = {"HTTP_REQUEST_MAX_RETRIES": "3", "HTTP_REQUEST_TIMEOUT": "30", "DISABLE_TELEMETRY": "true"}


def after_promotion(params: Params) -> list[str]:
    """Bring golden photo, model card and MLflow up to the model in production; return a warning for each failure."""
    folder = params.paths.production
    if not folder.is_dir():
        return []
    warnings = []
    try:
        publish(folder, patience=PATIENCE_SECONDS)
    except (RegraftError, OSError) as error:
        warnings.append(f"Warning: the file model.onnx beside production.json is as it was before: {error}")
    records = Records(folder)
    digest = records.digest
    if digest is None:
        return warnings
    try:
        write_golden(records.model)
    except (RegraftError, OSError) as error:
        warnings.append(f"Warning: the golden photo beside the model in production was not written: {error}")
    with suppress(RegraftError, OSError):  # no card without a whole run
        write_card(params)
    with suppress(RegraftError, OSError):
        card = params.paths.reports / CARD
        if digest in card.read_text(encoding="utf-8"):
            with replacing(folder / CARD) as temporary:
                shutil.copyfile(card, temporary)
    return [*warnings, *register(params, records, digest)]


def register(params: Params, records: Records, digest: str) -> list[str]:
    """Make the model in production the version of `promote.mlflow` that has the alias; return warnings.

    A version holds the file itself, to the byte. A model that is registered already only gets the alias.
    """
    settings = params.promote.mlflow
    if settings is None:
        return []
    note, state = Path(".dvc/tmp/regraft/mlflow.registered"), fingerprint([settings.model_dump(), digest])
    if note.is_file() and note.read_text(encoding="utf-8") == state:
        return []
    for name, value in _MLFLOW.items():
        os.environ.setdefault(f"MLFLOW_{name}", value)
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
    except Exception as error:  # MLflow, its store and its server raise any exception
        missing = f"{getattr(error, 'name', None)} is not installed: pip install mlflow-skinny"
        reason = missing if isinstance(error, ImportError) else " ".join(str(error).split())
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
    of_origin = {"git_revision": origin.revision, "data_md5": origin.data, "verdict": origin.verdict} if origin else {}
    tags = {"sha256": digest, "words": change.words[:1000], "approved_by": change.approved_by, **of_origin}
    tags = {name: value for name, value in tags.items() if value}
    nodes = model.session.get_inputs(), model.session.get_outputs()
    with mlflow.start_run(run_name=f"{settings.name} {digest[:12]}", tags=tags):
        mlflow.log_metrics(_metrics(params.paths.reports, digest))
        logged = mlflow.onnx.log_model(
            parse_graph(model.contents),
            name="model",
            signature=mlflow.models.ModelSignature(*(_schema(mlflow, each) for each in nodes)),
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,  # one file, with the bytes that the gate judged
            # Given, because MLflow would load the model to find out.
            pip_requirements=[f"{name}=={version_of(name)}" for name in ("onnx", "onnxruntime", "numpy")],
        )
        for name in (GOLDEN, CARD):
            if (path := records.model.with_name(name)).is_file():
                mlflow.log_artifact(str(path), "served")
    with tempfile.TemporaryDirectory(prefix="regraft-mlflow-") as folder:
        copy = Path(mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=folder)) / "model.onnx"
        if sha256_of(copy) != digest:
            raise RegraftError("the copy in MLflow has other bytes than the model in production; it is not registered.")
    return int(mlflow.register_model(logged.model_uri, settings.name, tags=tags).version)


def _metrics(reports: Path, digest: str) -> dict[str, float]:
    """Return the metrics on test, if they are those of this file."""
    try:
        is_same = read_json(reports / "export.json", "sha256")["sha256"] == digest
        test = read_json(reports / "metrics.json", "test")["test"] if is_same else {}
    except (FileNotFoundError, Damaged):
        return {}
    return {f"test_{name}": float(value) for name, value in test.items() if isinstance(value, int | float)}


def _schema(mlflow: Any, nodes: list[Any]) -> Any:
    kinds = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    shapes = [[size if isinstance(size, int) else -1 for size in node.shape] for node in nodes]
    return mlflow.types.Schema(
        [
            mlflow.types.TensorSpec(np.dtype(kinds[node.type]), tuple(shape), node.name)
            for node, shape in zip(nodes, shapes, strict=True)
        ]
    )
