"""What follows a change of production: the files beside the model, and MLflow's registry.

Nothing here undoes or blocks a promotion: a failure is a warning of the run, and the next run makes what is missing,
whatever the gate decides then.
"""

import shutil
from contextlib import suppress

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import replacing
from regraft.production.exclusive import publish
from regraft.production.lock import PATIENCE_SECONDS
from regraft.production.records import Records
from regraft.reports.model_card import FILE as CARD
from regraft.serving.golden import write_golden
from tasks.mlflow_registry import register
from tasks.report import write_card


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
    digest = records.standing().digest
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
    return [*warnings, *register(params)]
