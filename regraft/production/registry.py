"""The models in production, the ones before it, and the candidates that the gate did not promote.

    models/production/
        model.onnx                 the file that services read; replaced at once, never half-written
        versions/<sha256>.onnx     every model that is or was in production, the newest few
        versions/<sha256>.parquet  what that model was trained on (`regraft.production.training_data`)
        log.jsonl                  one line per change: when, which file, why (`regraft.production.logs`)
        change.json                the change that is under way: its future line in the log
        production.lock            held by the process that changes any of these
        damaged-<time>.onnx        a file that lay at model.onnx and was no model of ours
    models/candidates/<sha256>     .onnx the model, .parquet what it was trained on, .json the gate's words

A change is made in this order: change.json, the version, model.onnx, the log, and change.json is removed. After a kill
at any step model.onnx tells which side of the change was reached; the next change completes or forgets it first.
Readers count a change once model.onnx is replaced. A candidate gets its name last, so it is whole or not there.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from regraft.core.addresses import shown_path
from regraft.core.errors import Damaged, InputsChanged, RegraftError
from regraft.core.files import read_json, replacing, sha256_of, write_bytes, write_json
from regraft.production.exclusive import PATIENCE_SECONDS, exclusive, obtain, repeated
from regraft.production.logs import Change, Origin, read_change
from regraft.production.records import Records, Standing, is_sha256, read_digest
from regraft.production.training_data import Reference, read_reference, write_reference


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a promotion rests on; it is refused if that has changed when the model is put in place."""

    challenger: str  # SHA-256 of the model that was judged
    champion: str | None = None  # that of the model in production that it was compared with
    # A person wants it whatever is in production, even if it was rolled back from; it is the anchor then.
    is_by_hand: bool = False
    approved_by: str | None = None  # the person who decided, where one did
    origin: Origin | None = None  # of the new model, for the log


class Production(Records):
    """The folder models/production."""

    def __init__(self, folder: Path, *, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__(folder)
        self.patience = patience

    @repeated
    def promote(
        self, path: Path, words: str, *, keep: int, reference: Reference | None = None, grounds: Grounds | None = None
    ) -> None:
        """Put a copy of the model at `path` into production.

        Args:
            path: the model.
            words: why.
            keep: so many earlier ones stay for a rollback, each with its reference.
            reference: what the model was trained on.
            grounds: what must still hold; None is a promotion by hand of whatever is at `path`.

        Raises:
            InputsChanged: the grounds have changed. Production is as it was.
            Busy: another process is changing production.
        """
        with self.changing("promoting a model") as standing:
            digest = sha256_of(path)
            if grounds:
                self._check(grounds, digest, standing)
            if reference:
                # Before the model: a kill between the two leaves data of a model that is not there, which does no harm.
                write_reference(self.data_of(digest), reference)
            approved_by, origin = (grounds.approved_by, grounds.origin) if grounds else (None, None)
            anchor = digest if grounds and grounds.is_by_hand else None
            change = Change(_now(), "promoted", digest, words, approved_by=approved_by, origin=origin, anchor=anchor)
            self._use(path, change, standing)
            self._prune(keep)

    def rollback(self, *, by: str = "", to: str | None = None) -> Change:
        """Restore the model that was in production before the current one; again, and the one before that follows.

        In place of a damaged model its own sound copy is restored first, if there is one. The gate refuses the model
        that is left until a person promotes it by hand. And until a person promotes any model, the gate promotes none.

        Args:
            by: the person, as " by ...".
            to: the beginning of the SHA-256 of the model to go back to, such as the anchor.

        Raises:
            RegraftError: there is none.
            Busy: another process is changing production.
        """
        with self.changing("rolling back") as standing:
            earlier = [digest for digest in reversed(self.line()) if digest != standing.digest]
            for digest in earlier if to is None else [self.kept(to)]:
                if self.is_kept(digest):  # a damaged one is skipped: at night any sound model is better than none
                    change = _change_back(digest, standing, by)
                    self._use(self.version_of(digest), change, standing)
                    return change
        raise RegraftError(
            f"there is no earlier model in {shown_path(self.versions)} to go back to, says the log. model.onnx "
            f"stays as it is. Name one with `regraft promote --rollback --to SHA`, promote another one with `regraft "
            f"promote`, or without the gate with `regraft promote --force REASON`."
        )

    @repeated
    def set_anchor(self, beginning: str | None, *, by: str = "") -> Change:
        """Make a model the anchor: the one in production, or the kept one whose SHA-256 begins so.

        Raises:
            RegraftError: there is no such model.
            Busy: another process is changing production.
        """
        with self.changing("moving the anchor") as standing:
            if standing.digest is None:
                raise RegraftError(f"no sound model is in production. {standing.problem or ''}".rstrip())
            anchor = self.kept(beginning) if beginning else standing.digest
            words, person = f"The anchor is {anchor[:12]} from now on{by}.", by.removeprefix(" by ") or None
            change = Change(_now(), "anchored", standing.digest, words, approved_by=person, anchor=anchor)
            self.log.append(change)
            return change

    @contextmanager
    def changing(self, doing: str) -> Iterator[Standing]:
        """Keep others from changing production; first complete what a kill or a hand left."""
        with exclusive(self.folder, doing, patience=self.patience):
            self.log.check()
            _remove_temporary(self.folder)
            pending = read_change(self.pending)
            if pending and read_digest(self.model)[0] == pending.sha256:
                self._finish(pending)
            self.pending.unlink(missing_ok=True)
            standing = self.standing()
            if standing.digest:
                if not self.is_kept(standing.digest):
                    _copy(self.model, self.version_of(standing.digest), standing.digest)
                if standing.digest != standing.named:
                    words = "Found in production without a line in this log."
                    self.log.append(Change(_now(), "found", standing.digest, words))
            yield standing

    def _check(self, grounds: Grounds, digest: str, standing: Standing) -> None:
        again = "Nothing was promoted. Run `regraft promote` again."
        if digest != grounds.challenger:
            raise InputsChanged(f"the new model changed after it was judged. {again}")
        if grounds.is_by_hand:
            return
        if standing.problem or standing.digest != grounds.champion:
            there = standing.problem or f"it was {_short(grounds.champion)}, and is {_short(standing.digest)} now."
            raise InputsChanged(f"production changed while the new model was compared with it: {there} {again}")
        if rolled_back := self.rolled_back(digest):
            raise InputsChanged(f"the new model was rolled back from while it was judged. {rolled_back} {again}")
        if not grounds.approved_by and (since := self.waits_since()):
            raise InputsChanged(f"only a person may promote a model now. {since} {again}")

    def _use(self, path: Path, change: Change, standing: Standing) -> None:
        """Make a change, in the order of the head of this module."""
        version = self.version_of(change.sha256)
        write_bytes(self.pending, self.log.line(change))
        if not self.is_kept(change.sha256):
            self._set_aside(version)
            _copy(path, version, change.sha256)
        if standing.problem:
            self._set_aside(self.model)
        _copy(version, self.model, change.sha256)
        self._finish(change)

    def _finish(self, change: Change) -> None:
        """Record a change that has happened; once more does no harm."""
        if self.log.read()[0][-1:] != [change]:
            self.log.append(change)
        self.pending.unlink()

    def _set_aside(self, path: Path) -> None:
        """Rename what lies where a model belongs and is none."""
        if os.path.lexists(path):
            path.rename(self.folder / f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}{path.suffix}")

    def _prune(self, keep: int) -> None:
        kept = {*self.line()[-keep - 1 :], *self.anchors()}
        for version in self.versions.iterdir():
            if version.suffix in (".onnx", ".parquet") and is_sha256(version.stem) and version.stem not in kept:
                with suppress(IsADirectoryError, PermissionError):  # nothing that Regraft put there
                    version.unlink()


class Candidates:
    """The folder models/candidates; where production lies at an address, its folder candidates/ there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, model: Path, digest: str, words: str, *, reference: Reference | None, keep: int) -> Path:
        """Keep a copy of a model, and of all candidates the newest; the caller holds the lock of production.

        Args:
            model: the file.
            digest: its SHA-256 when it was judged.
            words: those of the gate.
            reference: what it was trained on, if that is known.
            keep: candidates that stay, this one among them.

        Raises:
            InputsChanged: the file changed meanwhile.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        _remove_temporary(self.folder)
        path = self.folder / f"{digest}.onnx"
        write_json(path.with_suffix(".json"), {"at": datetime.now(UTC).isoformat(), "words": words})
        if reference:
            write_reference(path.with_suffix(".parquet"), reference)
        _copy(model, path, digest)
        for old in self.digests()[keep:]:
            self.remove(old)
        return path

    def digests(self) -> list[str]:
        """Return the candidates, the newest first."""
        found = [path.stem for path in self.folder.glob("*.onnx") if is_sha256(path.stem)]
        return sorted(found, key=lambda digest: (self._note(digest)[0], digest), reverse=True)

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
        """Return what a candidate was trained on; None where that is not known, InvalidData where it is damaged."""
        path = self.folder / f"{digest}.parquet"
        return read_reference(path) if path.exists() else None

    def words_of(self, digest: str) -> str:
        """Return the gate's words on a candidate; empty where they are lost."""
        return self._note(digest)[1]

    def remove(self, digest: str) -> None:
        """Remove a candidate, the model first."""
        for suffix in (".onnx", ".parquet", ".json"):
            (self.folder / f"{digest}{suffix}").unlink(missing_ok=True)

    def _note(self, digest: str) -> tuple[str, str]:
        try:
            note = read_json(self.folder / f"{digest}.json", "at", "words")
            return str(note["at"]), str(note["words"])
        except (FileNotFoundError, Damaged):
            return "", ""


def _change_back(digest: str, standing: Standing, by: str) -> Change:
    left = standing.digest or standing.named
    if left == digest and not standing.problem:
        raise RegraftError(f"{digest[:12]} is in production already, and sound. Name another one with --to.")
    if left is None or left == digest:
        return Change(_now(), "restored", digest, f"A sound copy was put back{by}. {standing.problem}")
    reason = f" {standing.problem}" if standing.problem else ""
    words = f"Rolled back from {left[:12]}{by}.{reason}"
    return Change(_now(), "rolled back", digest, words, left, approved_by=by.removeprefix(" by ") or "a person")


def _copy(source: Path, target: Path, digest: str) -> None:
    """Replace a file by a copy whose bytes are the expected ones, or leave it as it is."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        if sha256_of(temporary) != digest:
            raise InputsChanged(f"{shown_path(source)} changed while it was copied. Run the same command again.")
        temporary.chmod(0o644)  # DVC's outputs may be read-only


def _remove_temporary(folder: Path) -> None:
    """Remove what killed processes left; the caller holds the lock of production."""
    for left in [*folder.glob(".*.tmp*"), *folder.glob("*/.*.tmp*")]:
        left.unlink()


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "no model"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
