"""The models in production: the one that services use, and those before it.

    models/production/
        model.onnx              what services read; replaced at once, never half-written
        versions/<sha256>.onnx  every model that is or was in production, the newest few
        log.jsonl               one line per change: when, which file, why

`model.onnx` is the truth. A kill between two of the steps below leaves at worst a version too many or a line missing in
the log, and the next change mends both.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from regraft.errors import RegraftError
from regraft.files import replacing, sha256_of


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the log."""

    at: str  # ISO 8601, UTC
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

    def history(self) -> list[Change]:
        """Return the changes, oldest first; half a last line, left by a kill, does not count."""
        if not self._log.exists():
            return []
        lines = self._log.read_text(encoding="utf-8").split("\n")
        return [Change(**json.loads(line)) for line in lines[:-1] if line]

    def promote(self, path: Path, words: str, *, keep: int) -> None:
        """Put a copy of the model at `path` into production; `keep` earlier ones stay for a rollback."""
        self._use(path, words)
        recent = dict.fromkeys(change.sha256 for change in reversed(self.history()))
        kept = {*list(recent)[: keep + 1], self.digest}
        for version in self._versions.glob("*.onnx"):
            if version.stem not in kept:
                version.unlink()

    def rollback(self) -> Change:
        """Put the model that was in production before the current one back.

        Raises:
            RegraftError: there is none.
        """
        history, current = self.history(), self.digest
        position = max(
            (index for index, change in enumerate(history) if change.sha256 == current), default=len(history)
        )
        for change in reversed(history[:position]):
            version = self._versions / f"{change.sha256}.onnx"
            if change.sha256 != current and version.exists():
                self._use(version, f"Rolled back from {(current or 'nothing')[:12]}.")
                return self.history()[-1]
        raise RegraftError(
            f"there is no earlier model in {self._versions} to go back to. {self.model} stays as it is. "
            f"Promote another one with `python -m flows.promote`."
        )

    def _use(self, path: Path, words: str) -> None:
        if (current := self.digest) and not (self._versions / f"{current}.onnx").exists():
            self._copy(self.model, self._versions / f"{current}.onnx")
        digest = sha256_of(path)
        version = self._versions / f"{digest}.onnx"
        if version != path:
            self._copy(path, version)
        self._copy(version, self.model)
        self._append(Change(datetime.now(UTC).isoformat(timespec="seconds"), digest, words))

    def _append(self, change: Change) -> None:
        contents = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
        whole = contents[: contents.rfind("\n") + 1]  # without half a line
        with replacing(self._log) as temporary:
            temporary.write_text(whole + json.dumps(asdict(change), ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
            temporary.chmod(0o644)  # DVC's outputs may be read-only
