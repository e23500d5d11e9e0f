"""The models in production: the one that services use, and those before it.

    models/production/
        model.onnx                 what services read; replaced at once, never half-written
        versions/<sha256>.onnx     every model that is or was in production, the newest few
        versions/<sha256>.parquet  what that model was trained on (`regraft.production.training_data`)
        log.jsonl                  one line per change: when, which file, why

`model.onnx` is the truth. A kill between two of the steps below leaves at worst a version too many or a line missing in
the log, and the next change repairs both.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from regraft.errors import InvalidData, RegraftError
from regraft.files import replacing, sha256_of, write_text
from regraft.production.training_data import Reference, read_reference, write_reference


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the log."""

    at: str  # ISO 8601, UTC
    action: Literal["promoted", "rolled back", "found"]  # found: put there by hand, or its line was lost in a kill
    sha256: str  # of the model in production from then on
    words: str  # why


class Production:
    """The folder models/production."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model.onnx"
        self._versions = folder / "versions"
        self._log = folder / "log.jsonl"

    @property
    def digest(self) -> str | None:
        """SHA-256 of the model in production, or None."""
        return sha256_of(self.model) if self.model.exists() else None

    @property
    def reference(self) -> Path | None:
        """The file that says what the model in production was trained on; None if that was not kept."""
        path = self._data_of(self.digest)
        return path if path.exists() else None

    def find_reference(self) -> tuple[Reference | None, str]:
        """Return what the model in production was trained on, if that is known, and a sentence that says which it is.

        A damaged file is told and does not raise: a night's training must not wait for somebody to remove it.
        """
        digest, path = self.digest, self.reference
        if digest is None:
            return None, "No model is in production yet, so there is nothing to compare the photos with."
        promoted = [change.at[:10] for change in self.history() if change.sha256 == digest]
        model = f"the model in production ({digest[:12]}{f', since {promoted[-1]}' if promoted else ''})"
        if path is None:
            return None, (
                f"Of {model} it is not known what it was trained on, so the photos are not compared with anything."
            )
        try:
            reference = read_reference(path)
        except InvalidData as error:
            return None, f"Warning: the photos are not compared with those of {model}, because {error}"
        return reference, f"Compared with the {len(reference.rows)} photos of {model}."

    def history(self) -> list[Change]:
        """Return the changes, oldest first; half a last line, left by a kill, does not count."""
        if not self._log.exists():
            return []
        lines = self._log.read_text(encoding="utf-8").split("\n")
        return [Change(**json.loads(line)) for line in lines[:-1] if line]

    def promote(self, path: Path, words: str, *, keep: int, reference: Reference | None = None) -> None:
        """Put a copy of the model at `path` into production.

        Args:
            path: the model.
            words: why.
            keep: so many earlier ones stay for a rollback, each with its reference.
            reference: what the model was trained on.
        """
        self._record_what_is_there()
        if reference:
            # Before the model: a kill between the two leaves data of a model that is not there, which does no harm.
            write_reference(self._data_of(sha256_of(path)), reference)
        self._use(path, "promoted", words)
        kept = {self.digest, *self._line()[-keep - 1 :]}
        for version in [*self._versions.glob("*.onnx"), *self._versions.glob("*.parquet")]:
            if version.stem not in kept:
                version.unlink()

    def rollback(self) -> Change:
        """Put the model that was in production before the current one back; again, and the one before that follows.

        Raises:
            RegraftError: there is none.
        """
        self._record_what_is_there()
        current = self.digest
        for digest in reversed(self._line()):
            version = self._versions / f"{digest}.onnx"
            # A damaged version is passed over: at night any sound model is better than none.
            if digest != current and version.exists() and sha256_of(version) == digest:
                self._use(version, "rolled back", f"Rolled back from {(current or 'nothing')[:12]}.")
                return self.history()[-1]
        raise RegraftError(
            f"there is no earlier model in {self._versions} to go back to. {self.model} stays as it is. "
            f"Promote another one with `regraft promote`."
        )

    def _data_of(self, digest: str | None) -> Path:
        return self._versions / f"{digest}.parquet"

    def _line(self) -> list[str]:
        """The models that led to the current one, oldest first; what was rolled back from is no part of it."""
        line: list[str] = []
        for change in self.history():
            if change.sha256 in line:
                line = line[: line.index(change.sha256)] if change.action == "rolled back" else line
                line = [digest for digest in line if digest != change.sha256]
            line.append(change.sha256)
        return line

    def _record_what_is_there(self) -> None:
        """Complete what a kill or a hand left: the model in production has a version and a line in the log."""
        current, history = self.digest, self.history()
        if current is None:
            return
        version = self._versions / f"{current}.onnx"
        if not version.exists() or sha256_of(version) != current:
            self._copy(self.model, version)
        if not history or history[-1].sha256 != current:
            self._append(Change(_now(), "found", current, "Found in production without a line in this log."))

    def _use(self, path: Path, action: Literal["promoted", "rolled back"], words: str) -> None:
        digest = sha256_of(path)
        version = self._versions / f"{digest}.onnx"
        if version != path:
            self._copy(path, version)
        self._copy(version, self.model)
        self._append(Change(_now(), action, digest, words))

    def _append(self, change: Change) -> None:
        contents = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
        whole = contents[: contents.rfind("\n") + 1]  # without half a line
        write_text(self._log, whole + json.dumps(asdict(change), ensure_ascii=False) + "\n")

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
            temporary.chmod(0o644)  # DVC's outputs may be read-only


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
