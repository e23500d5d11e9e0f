"""namespace.json: what the arrays in a folder are, for people and for the commands that look after the store.

The folder is named after a fingerprint of these facts, so a damaged or foreign description is known as such.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.files import fingerprint, write_json, writing
from regraft.store.names import DESCRIPTION, is_namespace

_LARGEST = 100_000  # bytes; facts are a few hundred
_LARGEST_ROW = 2**31


def folder_of(root: Path, facts: dict[str, Any]) -> Path:
    """Return the folder of the namespace that `facts` describe; their key `kind` is the first part of its name."""
    return root / f"{facts['kind']}-{fingerprint(facts)[:16]}"


def describe(folder: Path, facts: dict[str, Any]) -> None:
    """Write what the arrays are, unless it is there and sound."""
    if read_description(folder) is None:
        with writing(folder):
            write_json(folder / DESCRIPTION, facts)


def read_description(folder: Path) -> dict[str, Any] | None:
    """Return the facts in a namespace's description, or None if it is absent or damaged."""
    path = folder / DESCRIPTION
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        return facts_in(path.read_bytes(), folder.name)
    except OSError:
        return None


def facts_in(contents: bytes, folder: str) -> dict[str, Any] | None:
    """Return the facts in a description if they are those that a folder of this name holds, else None."""
    if len(contents) > _LARGEST or not is_namespace(folder):
        return None
    try:
        facts = json.loads(contents)
        is_sound = isinstance(facts, dict) and folder == folder_of(Path(), facts).name and _has_rows(facts)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return facts if is_sound else None


def _has_rows(facts: dict[str, Any]) -> bool:
    """Whether shape and dtype are those of an array of numbers, of a size that fits into memory."""
    shape, dtype = facts["shape"], np.dtype(facts["dtype"])
    return (
        isinstance(shape, list)
        and all(type(size) is int and size > 0 for size in shape)
        and dtype.kind in "fiu"
        and math.prod(shape) * dtype.itemsize <= _LARGEST_ROW
    )
