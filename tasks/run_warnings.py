"""What the checks of this run warned of, for the gate's verdict."""

from regraft.config import Params
from regraft.files import read_json


def warnings_of_run(params: Params) -> list[str]:
    """Return the warnings of both checks as sentences; none of a check whose report is not there."""
    found: list[str] = []
    for name in ("embeddings.json", "validation.json"):
        path = params.paths.reports / name
        if path.exists():
            for each in read_json(path)["expectations"]:
                if each["severity"] == "warn" and not each["success"]:
                    found.append(f"Expected {each['expected']}; found {each['found']}.")
    return found
