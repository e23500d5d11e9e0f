"""Is there anything to do? Asked of DVC in this process, without Prefect, whose temporary server takes ten seconds."""

from pathlib import Path

from regraft.config import Params
from regraft.files import sha256_of
from regraft.params_file import load_params
from regraft.photos.folder import check_folder
from tasks.dvc_seam import is_up_to_date


def nothing_to_do(root: Path, *, promote: bool) -> str | None:
    """Return what a run of the flow would end with if it had nothing to do, and None if it may have something to do.

    Args:
        root: the project's root.
        promote: whether the run would end with the gate.

    Raises:
        RegraftError: what the flow would stop with as well.
    """
    params = load_params(root / "params.yaml")
    check_folder(params.paths.raw)  # before DVC looks at it, which obeys or waits for what may lie there
    if not is_up_to_date(root, params.paths.raw):
        return None
    if not promote:
        return "Completed: every stage is up to date."
    if not _is_in_production(params):
        return None
    return "Already in production: every stage is up to date, and this very file is in production already."


def _is_in_production(params: Params) -> bool:
    from regraft.production.registry import Production

    # A damaged model in production is none, and so is one that the gate is to refuse: the run that follows says why.
    return params.paths.onnx.is_file() and Production(params.paths.production).digest == sha256_of(params.paths.onnx)
