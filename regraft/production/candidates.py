"""Candidates: models that the gate did not promote, kept so that a person can.

    models/candidates/<sha256>.onnx      the model
    models/candidates/<sha256>.parquet   what it was trained on
    models/candidates/<sha256>.json      what the gate said of it

Where production lies at an address, they lie there as well, in its folder candidates/.

The model gets its name last, so a candidate is whole or not there.
"""

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regraft.core.addresses import shown_path
from regraft.core.errors import Damaged, InputsChanged, RegraftError
from regraft.core.files import read_json, replacing, sha256_of, write_json
from regraft.production.mirror import obtain
from regraft.production.records import is_sha256
from regraft.production.training_data import Reference, read_reference, write_reference

_SUFFIXES = (".json", ".parquet", ".onnx")


class Candidates:
    """The folder models/candidates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, model: Path, digest: str, words: str, *, reference: Reference | None, keep: int) -> Path:
        """Keep a copy of a model, and of the newest ones only so many.

        Args:
            model: the file.
            digest: its SHA-256 when it was judged.
            words: what the gate said.
            reference: what it was trained on, if that is known.
            keep: candidates that stay, this one among them.

        The caller holds the lock of production (`regraft.production.exclusive`).

        Raises:
            InputsChanged: the file changed meanwhile.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.tmp*"):
            left.unlink()  # of a killed process: whoever adds holds the lock of production
        path = self.folder / f"{digest}.onnx"
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(path.with_suffix(".json"), {"at": at, "words": words, "order": self._next_order()})
        if reference:
            write_reference(path.with_suffix(".parquet"), reference)
        with replacing(path) as temporary:
            shutil.copyfile(model, temporary)
            if sha256_of(temporary) != digest:
                raise InputsChanged(f"{model} changed while it was copied. Run `regraft promote` again.")
            temporary.chmod(0o644)
        for old in self.digests()[keep:]:
            self.remove(old)
        return path

    def digests(self) -> list[str]:
        """Return the candidates, the newest first."""
        try:
            found = [path.stem for path in self.folder.iterdir() if path.suffix == ".onnx" and is_sha256(path.stem)]
        except OSError:
            return []
        return sorted(found, key=lambda digest: (self._order_of(digest), digest), reverse=True)

    def find(self, beginning: str) -> Path:
        """Return the sound candidate whose SHA-256 begins so.

        Raises:
            RegraftError: there is none, there are several, or it is damaged.
        """
        digests = self.digests()
        found = [digest for digest in digests if digest.startswith(beginning.lower())]
        if len(found) != 1:
            there = ", ".join(digest[:12] for digest in digests) or "none"
            raise RegraftError(
                f"the beginning of the SHA-256 of one candidate in {shown_path(self.folder)} was expected. Received: "
                f"'{beginning}', which fits {len(found)}. There are: {there}."
            )
        path = self.folder / f"{found[0]}.onnx"
        obtain(path)
        if sha256_of(path) != found[0]:
            raise RegraftError(f"{shown_path(path)} is damaged: its bytes are not those that were kept. Remove it.")
        return path

    def reference_of(self, digest: str) -> Reference | None:
        """Return what a candidate was trained on; None where that is not known.

        Raises:
            InvalidData: the file is damaged.
        """
        path = self.folder / f"{digest}.parquet"
        return read_reference(path) if path.exists() else None

    def words_of(self, digest: str) -> str:
        """Return what the gate said of a candidate; empty where that is lost."""
        return str(self._note(digest)["words"])

    def remove(self, digest: str) -> None:
        """Remove a candidate, the model first."""
        for suffix in reversed(_SUFFIXES):
            with suppress(FileNotFoundError):
                (self.folder / f"{digest}{suffix}").unlink()

    def _next_order(self) -> int:
        return 1 + max((self._order_of(digest) for digest in self.digests()), default=0)

    def _order_of(self, digest: str) -> int:
        """How late a candidate came; a count and no time, since clocks are set back."""
        order = self._note(digest)["order"]
        return order if isinstance(order, int) else 0

    def _note(self, digest: str) -> dict[str, Any]:
        try:
            return read_json(self.folder / f"{digest}.json", "words", "order")
        except (FileNotFoundError, Damaged):
            return {"words": "", "order": 0}
