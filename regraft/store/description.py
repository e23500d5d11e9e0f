"""namespace.json: what the arrays in a folder are, for people and for the commands that look after the store.

The folder is named after a fingerprint of these facts, so a damaged or foreign description is known as such.
"""

from pathlib import Path
from typing import Any

from regraft.files import fingerprint, read_json, write_json, writing

NAME = "namespace.json"


def folder_of(root: Path, facts: dict[str, Any]) -> Path:
    """Return the folder of the namespace that `facts` describe; their key `kind` is the first part of its name."""
    return root / f"{facts['kind']}-{fingerprint(facts)[:16]}"


def describe(folder: Path, facts: dict[str, Any]) -> None:
    """Write what the arrays are, unless it is there and sound."""
    path = folder / NAME
    if read_description(path) is None:
        with writing(folder):
            write_json(path, facts)


def read_description(path: Path) -> dict[str, Any] | None:
    """Return the facts in a namespace.json, or None if it is absent or damaged."""
    try:
        facts = read_json(path)
    except (FileNotFoundError, ValueError):
        return None
    return facts if path.parent.name.endswith(fingerprint(facts)[:16]) else None
