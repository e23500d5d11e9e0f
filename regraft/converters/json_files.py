"""Reading JSON that other tools wrote; whatever is wrong with it is an error that names the file and the place."""

import json
import os
from pathlib import Path
from typing import Any

from regraft.errors import InvalidData, printable
from regraft.files import readable_bytes
from regraft.photos.folder import open_inside

_MOST_BYTES = 1024 * 2**20  # about a million annotated photos; parsed, it takes several times as much memory


def load_json(root: Path, name: str) -> Any:
    """Return what a JSON file below `root` holds.

    Raises:
        InvalidData: it is too large, cannot be read or is no JSON.
    """
    shown = printable(str(root / name))
    try:
        with open_inside(root, name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_BYTES:
                raise InvalidData(
                    f"{shown} must have at most {readable_bytes(_MOST_BYTES)}. Received: {readable_bytes(size)}. "
                    f"Export it in parts."
                )
            return json.loads(file.read().decode("utf-8-sig"))
    except OSError as error:
        raise InvalidData(f"{shown} cannot be read: {error.strerror}. Make it readable.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{shown} is no JSON: {printable(str(error))}. Export it again.") from None


def list_in(value: Any, shown: str, what: str) -> list[dict[str, Any]]:
    """Return a list of objects, or raise InvalidData saying which entry is none; `what` names it: 'images'."""
    if not isinstance(value, list):
        raise InvalidData(f"{shown}: {what} must be a list. Received: {type(value).__name__}. Export it again.")
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise InvalidData(
                f"{shown}: entry {number} of {what} must be an object. Received: {type(entry).__name__}. Export it "
                f"again."
            )
    return value
