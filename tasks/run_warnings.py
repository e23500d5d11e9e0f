"""What the checks of this run warned of, for the gate's verdict."""

from regraft.core.config import Params
from regraft.core.files import read_json
from regraft.validation.checks import warnings_of


def warnings_of_run(params: Params) -> list[str]:
    """Return the warnings of both checks as sentences; none of a check whose report is not there."""
    reports = [params.paths.reports / name for name in ("embeddings.json", "validation.json")]
    return [warning for path in reports if path.exists() for warning in warnings_of(read_json(path, "expectations"))]
