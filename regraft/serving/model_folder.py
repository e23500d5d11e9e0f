"""What a path to a model is: a file, the folder models/production, or a Triton repository; and what lies around it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from regraft.errors import RegraftError, printable
from regraft.serving.golden import FILE as GOLDEN
from regraft.serving.triton import CONFIG, MODEL, NAME, is_version, versions_in

CHECKSUM = f"{MODEL}.sha256"  # beside a version of a Triton repository, as `sha256sum` writes it
_END = 100_000  # bytes of log.jsonl: its last lines
_DIGEST = re.compile(r"[0-9a-f]{64}")
_EXPECTED = (
    f"Expected a model.onnx, a folder models/production, or a Triton repository with {NAME}/<version>/{MODEL} in it"
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model file and its surroundings."""

    model: Path
    served: Path | None  # the folder of the model in a Triton repository
    log: Path | None  # log.jsonl of models/production, where the model is the one that services read

    @property
    def version(self) -> int | None:
        """The version that Triton serves: the highest."""
        return (versions_in(self.served) or [None])[-1] if self.served else None

    @property
    def golden(self) -> Path | None:
        """The folder with the golden photo, of the file or of the version that Triton serves; None if there is none."""
        folders = [self.model.parent]
        if self.served and self.version:
            folders.append(self.served / str(self.version))
        return next((folder for folder in folders if (folder / GOLDEN).exists()), None)


def find_model(path: Path) -> ModelFolder:
    """Return the model that a path means; of a Triton repository the version that is served.

    Raises:
        RegraftError: there is none.
    """
    if not path.exists():
        raise RegraftError(f"{printable(str(path))} is not there. {_EXPECTED}.")
    if not path.is_dir():
        return _around(path)
    if (path / MODEL).exists():
        return _around(path / MODEL)
    for served in (path / NAME, path):
        if versions := versions_in(served):
            return _around(served / str(versions[-1]) / MODEL)
    raise RegraftError(f"{printable(str(path))} holds no model. {_EXPECTED}.")


def named_digests(found: ModelFolder) -> dict[str, str]:
    """Return the SHA-256 that the model should have, and the name of the file that says so; empty where none does.

    There are two while a change of models/production is under way, or was killed: the model before it, and the new one.
    """
    checksum = found.model.with_name(CHECKSUM)
    if checksum.is_file() and (digest := _DIGEST.match(checksum.read_text(encoding="utf-8", errors="replace")[:200])):
        return {digest[0]: CHECKSUM}
    if found.log is None:
        return {}
    pending = found.log.with_name("change.json")
    digests: dict[str, str] = {}
    for path in (found.log, pending):
        said = [digest for line in _last_lines(path) if (digest := _digest_in(line))] if path.is_file() else []
        digests |= dict.fromkeys(said[-1:], path.name)
    return digests


def _around(model: Path) -> ModelFolder:
    folder = model.parent
    if is_version(folder.resolve().name) and (folder.parent / CONFIG).exists():
        return ModelFolder(model, folder.parent, None)
    log = folder / "log.jsonl"
    served = folder / NAME
    is_production = model.name == MODEL and log.is_file()
    has_served = model.name == MODEL and served.is_dir()
    return ModelFolder(model, served if has_served else None, log if is_production else None)


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        start = max(0, file.seek(0, 2) - _END)
        file.seek(start)
        return file.read(_END).decode(errors="replace").split("\n")


def _digest_in(line: str) -> str | None:
    try:
        digest = json.loads(line)["sha256"]
    except (LookupError, RecursionError, TypeError, ValueError):
        return None
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None
