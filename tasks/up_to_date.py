"""Is there anything to do? Asked of DVC in this process, without Prefect, whose import alone takes longer than that."""

from pathlib import Path
from typing import Any

from regraft.core.config import Params
from regraft.core.errors import Damaged
from regraft.core.files import fingerprint, read_json, sha256_of
from regraft.core.params_file import load_params
from regraft.photos.folder import check_folder
from tasks.dvc_files import saying_what_to_pull
from tasks.dvc_seam import is_up_to_date


def nothing_to_do(root: Path, *, promote: bool) -> tuple[str, str] | None:
    """Return how a run of the flow would end if it had nothing to do, and None if it may have something to do.

    Args:
        root: the project's root.
        promote: whether the run would end with the gate.

    Returns:
        The name of the state, and a sentence.

    Raises:
        RegraftError: what the flow would stop with as well.
    """
    params = load_params(root / "params.yaml")
    with saying_what_to_pull(params.paths.raw):
        check_folder(params.paths.raw)  # before DVC looks at it, which obeys or waits for what may lie there
    if not is_up_to_date(root, params.paths.raw):
        return None
    if not promote:
        return "Completed", "every stage is up to date."
    if _is_in_production(params):
        return "Already in production", "every stage is up to date, and this very file is in production already."
    if verdict := _standing_verdict(params):
        return "Nothing new", f"nothing has changed since the gate said {verdict}"
    return None


def about_of(params: Params, challenger: str, champion: str | None) -> dict[str, Any]:
    """Return what a verdict is about: with the same of all this the gate would say the same."""
    settings = fingerprint(params.promote.model_dump(mode="json"))
    return {
        "model": challenger,
        "champion": champion,
        "dataset": sha256_of(params.paths.dataset),
        "settings": settings,
    }


def _is_in_production(params: Params) -> bool:
    from regraft.production.records import Records

    # A damaged model in production is none, and so is one that the gate is to refuse: the run that follows says why.
    return params.paths.onnx.is_file() and Records(params.paths.production).digest == sha256_of(params.paths.onnx)


def _standing_verdict(params: Params) -> str | None:
    """Return what the gate said of this very model, against this production, on these photos and under these settings.

    The gate would say it again. One that let the model in is none: then it would be in production. Nor is one after
    which a person promoted or rolled back: the gate refuses what was rolled back from, whatever it said before.
    """
    from regraft.production.records import Records

    records = Records(params.paths.production)
    try:
        gate = read_json(params.paths.reports / "gate.json", "at", "about", "name", "is_accepted", "words")
        about = about_of(params, sha256_of(params.paths.onnx), records.digest)
    except (FileNotFoundError, Damaged):
        return None
    changes = records.history()
    if gate["is_accepted"] or gate["about"] != about or (changes and changes[-1].at >= str(gate["at"])):
        return None
    return str(gate["words"])
