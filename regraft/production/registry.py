"""The models in production: the one that services use, and those before it.

    models/production/
        model.onnx                 what services read; replaced at once, never half-written
        versions/<sha256>.onnx     every model that is or was in production, the newest few
        versions/<sha256>.parquet  what that model was trained on (`regraft.production.training_data`)
        log.jsonl                  one line per change: when, which file, why (`regraft.production.change_log`)
        rolled_back/<sha256>.json  a model that was rolled back from: it stays out until a person promotes it
        change.json                the change that is under way: its future line in the log
        production.lock            held by whoever changes any of these (`regraft.production.exclusive`)
        damaged-<time>.onnx        what lay at model.onnx and was no model of ours

A change is made in this order: change.json, the version, model.onnx, the log, rolled_back, and change.json goes. After
a kill at any step model.onnx tells which side of the change was reached; the next change completes or forgets it first.
Readers count a change from the moment that model.onnx is replaced.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from regraft.core.addresses import shown_path
from regraft.core.errors import InputsChanged, RegraftError
from regraft.core.files import replacing, sha256_of, write_bytes
from regraft.production.change_log import Change, Origin, read_change
from regraft.production.exclusive import exclusive, repeated
from regraft.production.lock import PATIENCE_SECONDS
from regraft.production.records import Records, Standing, is_sha256, read_digest
from regraft.production.training_data import Reference, write_reference


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a promotion rests on; it is refused if that is not so any more when the model is put in place."""

    challenger: str  # SHA-256 of the model that was looked at
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
            grounds: what must still be so; None is a promotion by hand of whatever is at `path`.

        Raises:
            InputsChanged: the grounds are gone. Production is as it was.
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
        """Put the model that was in production before the current one back; again, and the one before that follows.

        In place of a damaged one its own sound copy is put back first, if there is one. The model that is left is
        marked: the gate refuses it until a person promotes it by hand. And until a person promotes any model, the gate
        promotes none by itself.

        Args:
            by: who wants it, as " by ...".
            to: the beginning of the SHA-256 of the model to go back to, such as the anchor.

        Raises:
            RegraftError: there is none.
            Busy: another process is changing production.
        """
        with self.changing("rolling back") as standing:
            for digest in self._earlier(standing) if to is None else [self._kept(to)]:
                if self.is_kept(digest):  # a damaged one is passed over: at night any sound model is better than none
                    change = _change_back(digest, standing, by)
                    self._use(self.version_of(digest), change, standing)
                    return change
        raise RegraftError(
            f"there is no earlier model in {shown_path(self.versions)} to go back to. model.onnx stays as it is. "
            f"Promote another one with `regraft promote`, or without the gate with `regraft promote --force REASON`."
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
            digest = self._kept(beginning) if beginning else standing.digest
            words = f"The anchor is {digest[:12]} from now on{by}."
            change = Change(
                _now(), "anchored", standing.digest, words, approved_by=by.removeprefix(" by ") or None, anchor=digest
            )
            self.log.append(change)
            return change

    def _kept(self, beginning: str) -> str:
        """The model of which a copy is kept and whose SHA-256 begins so."""
        digests = self.other_versions([])
        found = [digest for digest in digests if digest.startswith(beginning.lower())]
        if len(found) != 1 or not self.is_kept(found[0]):
            raise RegraftError(
                f"the beginning of the SHA-256 of one model in {shown_path(self.versions)} was expected. Received: "
                f"'{beginning}', which fits {len(found)} sound ones. There are: "
                f"{', '.join(digest[:12] for digest in digests) or 'none'}."
            )
        return found[0]

    @contextmanager
    def changing(self, doing: str) -> Iterator[Standing]:
        """Be the only one who changes production; first complete what a kill or a hand left."""
        with exclusive(self.folder, doing, patience=self.patience):
            self.log.check()
            for left in [*self.folder.glob(".*.tmp*"), *self.folder.glob("*/.*.tmp*")]:
                left.unlink()  # of a killed process: whoever writes here has the lock
            self._complete()
            standing = self.standing()
            if standing.digest:
                if not self.is_kept(standing.digest):
                    copy_sound(self.model, self.version_of(standing.digest), standing.digest)
                if standing.digest != standing.named:
                    words = "Found in production without a line in this log."
                    self.log.append(Change(_now(), "found", standing.digest, words))
            yield standing

    def _complete(self) -> None:
        """Write down the change before, if it was killed after model.onnx was replaced; forget it otherwise."""
        pending = read_change(self.pending)
        if pending and read_digest(self.model)[0] == pending.sha256:
            self._finish(pending)
        elif pending and self._never_was_there(pending):
            # Its copy would look as if it had been in production, and so as if a model were missing.
            self.version_of(pending.sha256).unlink(missing_ok=True)
            self.data_of(pending.sha256).unlink(missing_ok=True)
        self.pending.unlink(missing_ok=True)

    def _never_was_there(self, pending: Change) -> bool:
        """Whether an unfinished change was to bring a new model; where records are lost, every copy is kept."""
        changes, damaged = self.log.read()
        known = [change.sha256 for change in changes]
        is_told = bool(known) or not self.other_versions([pending.sha256])
        return pending.action == "promoted" and pending.sha256 not in known and is_told and not damaged

    def _check(self, grounds: Grounds, digest: str, standing: Standing) -> None:
        again = "Nothing was promoted. Run `regraft promote` again."
        if digest != grounds.challenger:
            raise InputsChanged(f"the new model changed after it was looked at. {again}")
        if grounds.is_by_hand:
            return
        if standing.problem or standing.digest != grounds.champion:
            there = standing.problem or f"it was {_short(grounds.champion)}, and is {_short(standing.digest)} now."
            raise InputsChanged(f"production changed while the new model was compared with it: {there} {again}")
        if rolled_back := self.rolled_back(digest):
            raise InputsChanged(f"the new model was rolled back from while it was looked at. {rolled_back} {again}")
        if not grounds.approved_by and (since := self.waits_since()):
            raise InputsChanged(f"only a person may promote a model now. {since} {again}")

    def _earlier(self, standing: Standing) -> list[str]:
        """The models that a rollback may go to, the best first."""
        line = self.line()
        changes, damaged = self.log.read()
        if damaged or not changes:  # lines are lost, so versions that no line names may be what came before
            known = [change.sha256 for change in changes]
            line = [digest for digest in self.other_versions(known)[::-1] if not self.rolled_back(digest)] + line
        return [digest for digest in reversed(line) if digest != standing.digest]

    def _use(self, path: Path, change: Change, standing: Standing) -> None:
        """Make a change, in the order that the head of this module tells."""
        version = self.version_of(change.sha256)
        write_bytes(self.pending, change.line())
        if not self.is_kept(change.sha256):
            _set_aside(version, self.folder)
            copy_sound(path, version, change.sha256)
        if standing.problem:
            _set_aside(self.model, self.folder)
        copy_sound(version, self.model, change.sha256)
        found, reason = read_digest(self.model)
        if found != change.sha256:
            raise InputsChanged(
                f"{shown_path(self.model)} should be {_short(change.sha256)} now, and is {reason or _short(found)}: "
                f"somebody writes to it without its lock. Stop that, and run `regraft promote --rollback`."
            )
        self._finish(change)

    def _finish(self, change: Change) -> None:
        """Write down a change that has happened; once more does no harm."""
        if self.log.read()[0][-1:] != [change]:
            self.log.append(change)
        if change.left:
            write_bytes(self.mark_of(change.left), change.line())
        if change.action == "promoted":
            self.mark_of(change.sha256).unlink(missing_ok=True)
        self.pending.unlink()

    def _prune(self, keep: int) -> None:
        line = self.line()
        kept = {*line[-keep - 1 :], *self.anchors()}
        for version in self.versions.iterdir():
            if version.suffix in (".onnx", ".parquet") and is_sha256(version.stem) and version.stem not in kept:
                with suppress(IsADirectoryError, PermissionError):  # nothing that Regraft put there
                    version.unlink()


def _change_back(digest: str, standing: Standing, by: str) -> Change:
    left = standing.digest or standing.named
    if left == digest and not standing.problem:
        raise RegraftError(f"{digest[:12]} is in production already, and sound. Name another one with --to.")
    if left is None or left == digest:
        return Change(_now(), "restored", digest, f"A sound copy was put back{by}. {standing.problem}")
    reason = f" {standing.problem}" if standing.problem else ""
    words = f"Rolled back from {left[:12]}{by}.{reason}"
    return Change(_now(), "rolled back", digest, words, left, approved_by=by.removeprefix(" by ") or "a person")


def copy_sound(source: Path, target: Path, digest: str) -> None:
    """Replace a file by a copy whose bytes are the expected ones, or leave it as it is."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        if sha256_of(temporary) != digest:
            raise InputsChanged(f"{shown_path(source)} changed while it was copied. Run the same command again.")
        temporary.chmod(0o644)  # DVC's outputs may be read-only


def _set_aside(path: Path, folder: Path) -> None:
    """Keep what lies where a file of ours belongs and is none: a folder moves, of a file another name is left."""
    aside = folder / f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}{path.suffix}"
    if path.is_dir() and not path.is_symlink():
        path.rename(aside)
    elif os.path.lexists(path):
        with suppress(OSError):  # not every file system has hard links
            os.link(path, aside, follow_symlinks=False)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "no model"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
