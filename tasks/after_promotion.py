"""After a change of production: what services find beside the model, and the registries that are told of it.

Neither undoes a promotion nor hinders one: what goes wrong is a warning of the run, and what is missing the next run
makes, whatever the gate says then.
"""

from contextlib import suppress

from regraft.addresses import shown_path
from regraft.config import Params
from regraft.errors import RegraftError
from regraft.production.exclusive import publish
from regraft.production.lock import PATIENCE_SECONDS
from regraft.production.registry import Production
from regraft.production.served import CARD, bring_up_to_date
from tasks.registries.tell import tell
from tasks.report import write_card


def after_promotion(params: Params) -> list[str]:
    """Bring the Triton repository and MLflow's registry up to production; return a sentence on each that failed."""
    return [*_serve(params), *(sentence for sentence in tell(params, "mlflow") if sentence.startswith("Warning"))]


def tag_commit(params: Params) -> list[str]:
    """Let GTO tag the commit of the model in production, which has to be there: after the commit of a run."""
    return tell(params, "gto")


def _serve(params: Params) -> list[str]:
    folder = params.paths.production
    if not folder.is_dir():
        return []
    with suppress(RegraftError, OSError):  # without a whole run there is none
        write_card(params)
    warnings = []
    try:
        publish(folder, patience=PATIENCE_SECONDS)
    except (RegraftError, OSError) as error:
        warnings.append(f"Warning: the file model.onnx beside production.json is as it was before: {error}")
    try:
        bring_up_to_date(Production(folder), params.paths.reports / CARD)
    except (RegraftError, OSError) as error:
        warnings.append(f"Warning: the Triton repository in {shown_path(folder)} is as it was before: {error}")
    return warnings
