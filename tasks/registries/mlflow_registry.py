"""The model in production, as a version of a registered model of MLflow, with an alias that says which one serves.

    python -m tasks.registries.mlflow_registry

What a version has: the file itself, to the byte; signature; the figures on test; tags with its SHA-256 and where it
comes from; golden photo and model card. A model that is there already, as after a rollback, only gets the alias.
"""

import sys
import tempfile
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from regraft.config import Params
from regraft.errors import Damaged, RegraftError
from regraft.files import read_json, sha256_of
from regraft.onnx_graphs.parsing import parse_graph
from regraft.params_file import load_params
from regraft.production.change_log import Change
from regraft.production.records import Records
from regraft.serving.shipped_model import ShippedModel
from regraft.serving.triton import NAME, versions_in

_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_BESIDE = ("golden.png", "golden.json", "model_card.md")


def register(params: Params) -> str:
    """Register the model in production, and return a sentence on it.

    Raises:
        RegraftError: the package is missing, or production holds no sound model.
        mlflow.exceptions.MlflowException: the server does not answer, or refuses.
    """
    settings, records = params.promote.mlflow, Records(params.paths.production)
    digest = records.digest
    if settings is None or digest is None:
        raise RegraftError("there is nothing to register: promote.mlflow is null, or production holds no sound model.")
    try:
        mlflow: Any = import_module("mlflow")
        import_module("mlflow.onnx")
    except ImportError as error:
        raise RegraftError(
            f"promote.mlflow needs mlflow-skinny, and {error.name} is not installed: pip install mlflow-skinny"
        ) from None
    if settings.tracking_uri:
        mlflow.set_tracking_uri(settings.tracking_uri)
    client = mlflow.MlflowClient()
    version = _known_version(client, settings.name, digest)
    is_new = version is None
    if version is None:
        change = next(change for change in reversed(records.history()) if change.sha256 == digest)
        version = _log(params, mlflow, records, change)
    client.set_registered_model_alias(settings.name, settings.alias, str(version))
    what = "registered as" if is_new else "is already"
    return f"MLflow: model {digest[:12]} {what} version {version} of {settings.name}; {settings.alias} means it now."


def _known_version(client: Any, name: str, digest: str) -> int | None:
    found = client.search_model_versions(f"name = '{name}'")
    versions = [int(version.version) for version in found if version.tags.get("sha256") == digest]
    return max(versions, default=None)


def _log(params: Params, mlflow: Any, records: Records, change: Change) -> int:
    """Log the file with what is known of it, and return its version in the registry."""
    settings, model = params.promote.mlflow, ShippedModel(records.model)
    assert settings
    if settings.experiment:
        mlflow.set_experiment(settings.experiment)
    tags = _tags(change)
    with mlflow.start_run(run_name=f"{settings.name} {change.sha256[:12]}", tags=tags):
        mlflow.log_metrics(_figures(params, change.sha256))
        logged = mlflow.onnx.log_model(
            parse_graph(model.contents),
            name="model",
            signature=_signature(mlflow, model),
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,  # the file stays one file, with the bytes that the gate saw
            pip_requirements=_requirements(),
        )
        for path in _beside(records):
            mlflow.log_artifact(str(path), "served")
    _check_bytes(mlflow, logged.model_uri, change.sha256)
    return int(mlflow.register_model(logged.model_uri, settings.name, tags=tags).version)


def _check_bytes(mlflow: Any, uri: str, digest: str) -> None:
    with tempfile.TemporaryDirectory(prefix="regraft-mlflow-") as folder:
        kept = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
        if sha256_of(kept / "model.onnx") != digest:
            raise RegraftError("what MLflow keeps has other bytes than the model in production; it was not registered.")


def _tags(change: Change) -> dict[str, str]:
    origin = change.origin
    known = {
        "sha256": change.sha256,
        "git_revision": origin and origin.revision,
        "data_md5": origin and origin.data,
        "verdict": origin and origin.verdict,
        "words": change.words[:1000],
        "approved_by": change.approved_by,
    }
    return {name: value for name, value in known.items() if value}


def _figures(params: Params, digest: str) -> dict[str, float]:
    """Return the figures on test, if they are those of this file."""
    try:
        exported = read_json(params.paths.reports / "export.json", "sha256")
        test = read_json(params.paths.reports / "metrics.json", "test")["test"]
    except (FileNotFoundError, Damaged):
        return {}
    if exported["sha256"] != digest:
        return {}
    return {f"test_{name}": float(value) for name, value in test.items() if isinstance(value, int | float)}


def _signature(mlflow: Any, model: ShippedModel) -> Any:
    import numpy as np

    def schema(nodes: list[Any]) -> Any:
        types = mlflow.types
        return types.Schema(
            [types.TensorSpec(np.dtype(_TYPES[node.type]), _shape(node.shape), node.name) for node in nodes]
        )

    return mlflow.models.ModelSignature(schema(model.session.get_inputs()), schema(model.session.get_outputs()))


def _shape(shape: list[Any]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in shape)


def _requirements() -> list[str]:
    """What runs the file: asked of the installed packages, because MLflow would load the model to find out."""
    return [f"{name}=={version_of(name)}" for name in ("onnx", "onnxruntime", "numpy")]


def _beside(records: Records) -> list[Path]:
    served = records.folder / NAME
    versions = versions_in(served)
    folder = served / str(versions[-1]) if versions else served
    return [folder / name for name in _BESIDE if (folder / name).is_file()]


def main() -> None:
    """What a registry raises becomes one line, which `tell` hands on."""
    try:
        print(register(load_params(Path("params.yaml"))))
    except Exception as error:  # whatever a server, or its client, thinks of
        print(" ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
