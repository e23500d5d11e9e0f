"""A model and the files around it: the path that a person gives is a file, or a folder such as models/production."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from regraft.core.errors import RegraftError, printable
from regraft.serving.golden import FILE as GOLDEN

MODEL = "model.onnx"
CHECKSUM = f"{MODEL}.sha256"  # in the format of `sha256sum`
_END = 100_000  # bytes of log.jsonl: its last lines
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model file and its surroundings."""

    model: Path
    log: Path | None  # log.jsonl of models/production, if the model is the one that services read

    @property
    def golden(self) -> Path | None:
        """The folder with golden.json, or None."""
        return self.model.parent if (self.model.parent / GOLDEN).exists() else None


def find_model(path: Path) -> ModelFolder:
    """Return the model at a path.

    Raises:
        RegraftError: there is none.
    """
    expected = f"Expected a {MODEL}, or a folder with one such as models/production"
    if not path.exists():
        raise RegraftError(f"{printable(str(path))} does not exist. {expected}.")
    if path.is_dir():
        path = path / MODEL
        if not path.exists():
            raise RegraftError(f"{printable(str(path.parent))} contains no model. {expected}.")
    log = path.with_name("log.jsonl")
    return ModelFolder(path, log if path.name == MODEL and log.is_file() else None)


def named_digests(found: ModelFolder) -> dict[str, str]:
    """Return the SHA-256 that the model should have, and the name of the file that states it; empty without one.

    There are two while models/production changes, or where a change was killed: the model before it, and the new one.
    """
    checksum = found.model.with_name(CHECKSUM)
    if checksum.is_file() and (digest := _DIGEST.match(checksum.read_text(encoding="utf-8", errors="replace")[:200])):
        return {digest[0]: CHECKSUM}
    if found.log is None:
        return {}
    digests: dict[str, str] = {}
    for path in (found.log, found.log.with_name("change.json")):
        named = [digest for line in _last_lines(path) if (digest := _digest_in(line))] if path.is_file() else []
        digests |= dict.fromkeys(named[-1:], path.name)
    return digests


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _END))
        return file.read(_END).decode(errors="replace").split("\n")


def _digest_in(line: str) -> str | None:
    try:
        digest = json.loads(line)["sha256"]
    except (LookupError, RecursionError, TypeError, ValueError):
        return None
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None
