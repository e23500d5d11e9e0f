"""What is in production, and what the records say of it. Nothing here changes anything.

Nothing here raises either, but where production lies at an address that cannot be reached: then nobody knows.

Whatever lies in the folder may be damaged: a file counts as a model only if its bytes are those that its name or the
log says, and a link or a device never does, because what is behind it can change at any time.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.addresses import shown_path
from regraft.core.errors import InvalidData
from regraft.core.files import open_regular
from regraft.production.change_log import Change, ChangeLog, read_change
from regraft.production.mirror import obtain, refreshed
from regraft.production.mirrored import PENDING

if TYPE_CHECKING:
    from regraft.production.training_data import Reference


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in production; all three are None where there never was a model."""

    digest: str | None  # of a sound model
    problem: str | None  # why there is no sound one although there was one, as a sentence
    named: str | None  # the model that should be there, as far as the log tells


class Records:
    """The folder models/production, or the mirror of an address, to be read."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; RegraftError if it mirrors an address that cannot be reached, or is damaged there."""
        self.folder = refreshed(folder)
        self.model = folder / "model.onnx"
        self.versions = folder / "versions"
        self.log = ChangeLog(folder / "log.jsonl")
        self.pending = folder / PENDING

    def version_of(self, digest: str) -> Path:
        """Return where the copy of a model is kept."""
        return self.versions / f"{digest}.onnx"

    def data_of(self, digest: str) -> Path:
        """Return where the data of a model is kept."""
        return self.versions / f"{digest}.parquet"

    def mark_of(self, digest: str) -> Path:
        """Return the file whose existence says that a model was rolled back from."""
        return self.folder / "rolled_back" / f"{digest}.json"

    def is_kept(self, digest: str) -> bool:
        """Whether there is a sound copy of a model; one that lies at an address only is fetched."""
        obtain(self.version_of(digest))
        return read_digest(self.version_of(digest))[0] == digest

    @property
    def digest(self) -> str | None:
        """SHA-256 of the model in production; None if there is none, or a damaged one."""
        return self.standing().digest

    def history(self) -> list[Change]:
        """Return the changes, oldest first; one that was killed after model.onnx was replaced counts as well."""
        changes, _ = self.log.read()
        pending = read_change(self.pending)
        if pending and changes[-1:] != [pending] and read_digest(self.model)[0] == pending.sha256:
            changes.append(pending)
        return changes

    def line(self) -> list[str]:
        """Return the models that led to the current one, oldest first, without what was rolled back from."""
        line: list[str] = []
        for change in self.history():
            if change.sha256 in line:
                line = line[: line.index(change.sha256)] if change.action == "rolled back" else line
                line = [digest for digest in line if digest != change.sha256]
            line.append(change.sha256)
        return line

    def standing(self) -> Standing:
        """Return what is in production.

        A model counts as sound if the log names it last, or if it is a version that was kept: then somebody put it
        there by hand, or its line was lost. Where there are neither log nor versions, the first model was put there by
        hand.
        """
        history = self.history()
        named = history[-1].sha256 if history else None
        if self.folder.is_symlink() and not self.folder.exists():
            return Standing(None, f"{shown_path(self.folder)} is a link to a folder that is not there.", named)
        found, reason = read_digest(self.model)
        if found and (found == named or self.is_kept(found) or not (named or self._unfinished_apart())):
            return Standing(found, None, named)
        if not found and reason == _MISSING and not (named or self._has_traces()):
            return Standing(None, None, None)
        what = f"has other bytes (sha256 {found[:12]}) than were put there" if found else f"cannot be read: {reason}"
        should = (
            f"{named[:12]}, since {minute(history[-1].at)}, says {shown_path(self.log.path)}" if named else "a model"
        )
        return Standing(None, f"{shown_path(self.model)} is damaged: it {what}. It should be {should}.", named)

    def rolled_back(self, digest: str) -> str | None:
        """Return a sentence on when and by whom a model was rolled back from, or None if it was not.

        The log and the mark say it, each where the other is lost. A promotion by hand takes both back.
        """
        found = before = None
        for change in self.history():
            if change.action == "rolled back" and digest in (change.left, change.left or before):
                found = change
            elif change.action == "promoted" and change.sha256 == digest:
                found = None
            before = change.sha256
        mark = self.mark_of(digest)
        if found is None and not os.path.lexists(mark):
            return None
        found = found or read_change(mark)
        if found is None:
            return f"It was rolled back from; {shown_path(mark)} does not say any more when, or by whom."
        return f"It was rolled back from at {minute(found.at)}: {found.words}"

    def waits_since(self) -> str | None:
        """Return a sentence on the last rollback if no person has promoted a model since, or None.

        A rollback blocks one file, and the same photos with one more give another one. So it is also a decision
        against what the gate would do by itself: until a person lets a model in, it promotes none. The log says it;
        where its lines are lost, the marks do.
        """
        for change in reversed(self.history()):
            if change.action == "promoted" and change.approved_by:
                return None
            if change.action == "rolled back":
                return f"At {minute(change.at)} a person decided against what was in production: {change.words}"
        if any(self.mark_of("").parent.glob("*.json")):
            return (
                f"A model was rolled back from, and {shown_path(self.log.path)} does not say any more when, or by whom."
            )
        return None

    @property
    def reference(self) -> Path | None:
        """The file that says what the model in production was trained on; None if that was not kept."""
        standing = self.standing()
        digest = standing.digest or standing.named
        return self.data_of(digest) if digest and self.data_of(digest).is_file() else None

    def reference_of(self, digest: str) -> "Reference | None":
        """Return what a model was trained on; None where that was not kept, or is damaged."""
        from regraft.production.training_data import read_reference  # it needs pandas, and a run without news does not

        try:
            return read_reference(self.data_of(digest))
        except (InvalidData, FileNotFoundError):
            return None

    def find_reference(self) -> "tuple[Reference | None, str]":
        """Return what the model in production was trained on, if that is known, and a sentence that says which it is.

        A damaged file is told and does not raise: a night's training must not wait for somebody to remove it.
        """
        standing, path = self.standing(), self.reference
        digest = standing.digest or standing.named
        if digest is None:
            nothing = "No model was in production when this was checked, so the photos were compared with nothing."
            return None, f"Warning: {standing.problem}" if standing.problem else nothing
        promoted = [change.at[:10] for change in self.history() if change.sha256 == digest]
        model = f"the model in production ({digest[:12]}{f', since {promoted[-1]}' if promoted else ''})"
        if path is None:
            return None, (
                f"Of {model} it is not known what it was trained on, so the photos are not compared with anything."
            )
        return _told_reference(path, model)

    def anchored(self) -> tuple[str | None, list[Change]]:
        """Return the anchor, and the changes from the one that made it the anchor on; None before any model.

        Small losses night after night add up, and a comparison with the one before never sees them. The anchor is the
        model that a person named last, forced in or rolled back to; before any of these it is the first model. To
        approve what the gate compared moves nothing, or the anchor would follow the losses that it should see.
        """
        history = self.history()
        for position in reversed(range(len(history))):
            change = history[position]
            if anchor := change.anchor or (change.sha256 if change.action == "rolled back" else None):
                return anchor, history[position:]
        return history[0].sha256 if history else None, history

    def anchors(self) -> list[str]:
        """Return the anchor and, beside it, the first model of all."""
        anchor, _ = self.anchored()
        first = self.history()[0].sha256 if anchor else None
        return list(dict.fromkeys(digest for digest in (anchor, first) if digest))

    def was_chosen(self, digest: str) -> bool:
        """Whether a model came in because of how it did on the test photos, by the gate or by a person who followed it.

        The first model, one that was forced in and one that was put there by hand were not.
        """
        history = self.history()
        came = [n for n, change in enumerate(history) if change.sha256 == digest and change.action == "promoted"]
        return bool(came) and came[-1] > 0 and history[came[-1]].anchor is None

    def anchor_reference(self) -> "tuple[Reference | None, str]":
        """Return what the anchor was trained on, if it is another model than that in production, and a sentence."""
        standing, (anchor, _) = self.standing(), self.anchored()
        if anchor is None or anchor == (standing.digest or standing.named):
            return None, "The model in production is the anchor."
        model = f"the anchor ({anchor[:12]})"
        path = self.data_of(anchor)
        if not path.is_file():
            return None, f"Of {model} it is not known what it was trained on."
        return _told_reference(path, model)

    def predecessor(self) -> str | None:
        """Return the model that was in production before the current one; None where that is not known, or not kept."""
        line, standing = self.line(), self.standing()
        before = [digest for digest in line if digest != standing.digest]
        return before[-1] if before and standing.digest and self.is_kept(before[-1]) else None

    def other_versions(self, known: list[str]) -> list[str]:
        """Return the models of which a copy is kept, without the known ones, the newest copy first."""
        try:
            paths = [path for path in self.versions.iterdir() if path.suffix == ".onnx" and is_sha256(path.stem)]
            paths.sort(key=lambda path: path.lstat().st_mtime, reverse=True)
        except OSError:
            return []
        return [path.stem for path in paths if path.stem not in known]

    def _has_traces(self) -> bool:
        """Whether something says that there was a model: a log, however damaged, or a version."""
        log = self.log.path
        has_log = os.path.lexists(log) and (not log.is_file() or log.stat().st_size > 0)
        return has_log or bool(self._unfinished_apart())

    def _unfinished_apart(self) -> list[str]:
        """The versions, without that of a first promotion that was killed on its way."""
        pending = read_change(self.pending)
        return self.other_versions([pending.sha256] if pending else [])


def _told_reference(path: Path, model: str) -> "tuple[Reference | None, str]":
    from regraft.production.training_data import read_reference

    try:
        reference = read_reference(path)
    except InvalidData as error:
        return None, f"Warning: the photos are not compared with those of {model}, because {error}"
    return reference, f"Compared with the {len(reference.rows)} photos of {model}. {reference.lacking}".rstrip()


_MISSING = "it is not there"


def minute(at: str) -> str:
    """Return the time of a change as a person reads it."""
    return f"{at[:16].replace('T', ' ')} UTC"


def is_sha256(text: str) -> bool:
    """Whether a name can be that of a model."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def read_digest(path: Path) -> tuple[str | None, str]:
    """Return the SHA-256 of a regular file's bytes, or None and why there is none."""
    try:
        if path.is_symlink():
            return None, "it is a link, and what is behind it can change at any time"
        with open_regular(path, os.O_NOFOLLOW) as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), ""
    except FileNotFoundError:
        return None, _MISSING
    except OSError as error:
        return None, error.strerror or str(error)
