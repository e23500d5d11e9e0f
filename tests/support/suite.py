"""The expectations that come with Regraft, with some changed."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from regraft.validation.great_expectations import Expectation
from regraft.validation.suite import read_suites

SHIPPED = Path(__file__).parents[2] / "expectations" / "photos.json"


def suite_with(changes: dict[str, Any]) -> list[Expectation]:
    """Return the shipped expectations with some changed, as in `change_suite`."""
    with TemporaryDirectory() as folder:
        change_suite(Path(folder, "photos.json"), changes)
        return read_suites(Path(folder))


def change_suite(path: Path, changes: dict[str, Any], *, shipped: Path = SHIPPED) -> None:
    """Write the shipped suite with some changes, as `{"sharp_enough.min_value": 3, "no_copies": None}`.

    Args:
        path: of the new file.
        changes: `name.severity`, `name.unusual` or `name.` and an argument: its value; `name`: None removes it.
        shipped: the suite to start from.
    """
    contents = json.loads(shipped.read_text())
    entries = {entry["meta"]["name"]: entry for entry in contents["expectations"]}
    for change, value in changes.items():
        name, _, key = change.partition(".")
        if not key:
            del entries[name]
        elif key == "severity":
            entries[name]["severity"] = value
        else:
            entries[name]["meta" if key == "unusual" else "kwargs"][key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(contents | {"expectations": list(entries.values())}))
