"""The records of production, read only: which model is in it, which came before, and what a person decided.

Whatever lies in the folder may be damaged. A file counts as a model only if its bytes have the SHA-256 in its name or
in the log; a link or a device never does, because its target can change at any time. Nothing here raises, except where
production lies at an address that cannot be reached.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.addresses import shown_path
from regraft.core.errors import InvalidData, RegraftError
from regraft.core.files import open_regular
from regraft.production.exclusive import obtain, refreshed
from regraft.production.logs import Change, change_log, read_change
from regraft.production.remote_registry import PENDING

if TYPE_CHECKING:
    from regraft.export.classifier import OnnxClassifier
    from regraft.production.training_data import Reference

_MISSING = "it is not there"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in production; all three are None where there never was a model."""

    digest: str | None  # of a sound model
    problem: str | None  # why there is no sound one although there was one, as a sentence
    named: str | None  # the model that should be there, according to the log


class Records:
    """The folder models/production, or the mirror of an address, to be read."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; RegraftError if it mirrors an address that cannot be reached, or is damaged there."""
        self.folder = refreshed(folder)
        self.model = folder / "model.onnx"
        self.versions = folder / "versions"
        self.log = change_log(folder)
        self.pending = folder / PENDING

    def version_of(self, digest: str) -> Path:
        """Return the path of the copy of a model."""
        return self.versions / f"{digest}.onnx"

    def data_of(self, digest: str) -> Path:
        """Return the path of what a model was trained on."""
        return self.versions / f"{digest}.parquet"

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

        A model counts as sound if the log names it last, or if a copy of it was kept: then somebody put it there by
        hand, or its line was lost. Without any line a model that is there was put there by hand.
        """
        history = self.history()
        named = history[-1].sha256 if history else None
        found, reason = read_digest(self.model)
        if found and (named in (None, found) or self.is_kept(found)):
            return Standing(found, None, named)
        if not found and reason == _MISSING and not named and not self.log.read()[1]:
            return Standing(None, None, None)
        what = f"has other bytes (sha256 {found[:12]}) than were put there" if found else f"cannot be read: {reason}"
        log = shown_path(self.log.path)
        should = f"{named[:12]}, since {_minute(history[-1].at)}, says {log}" if named else f"a model: {log} is damaged"
        return Standing(None, f"{shown_path(self.model)} is damaged: it {what}. It should be {should}.", named)

    def rolled_back(self, digest: str) -> str | None:
        """Return a sentence on the rollback that left a model, or None; a promotion by hand takes it back."""
        found = None
        for change in self.history():
            if change.left == digest:
                found = change
            elif change.action == "promoted" and change.sha256 == digest:
                found = None
        return found and f"It was rolled back from at {_minute(found.at)}: {found.words}"

    def waits_since(self) -> str | None:
        """Return a sentence on the last rollback if no person has promoted a model since, or None.

        A rollback blocks one file, and the same photos with one more give another one. So it is also a decision
        against what the gate would do by itself: until a person promotes a model, the gate promotes none.
        """
        for change in reversed(self.history()):
            if change.action == "promoted" and change.approved_by:
                return None
            if change.action == "rolled back":
                return f"At {_minute(change.at)} a person decided against what was in production: {change.words}"
        return None

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
        """Whether a model was promoted because of its answers to the test photos, by the gate or by a person.

        The first model, one that was forced in and one that was put there by hand were not.
        """
        history = self.history()
        came = [n for n, change in enumerate(history) if change.sha256 == digest and change.action == "promoted"]
        return bool(came) and came[-1] > 0 and history[came[-1]].anchor is None

    def predecessor(self) -> str | None:
        """Return the model that was in production before the current one; None where that is not known, or not kept."""
        digest = self.standing().digest
        before = [each for each in self.line() if each != digest]
        return before[-1] if before and digest and self.is_kept(before[-1]) else None

    def kept(self, beginning: str) -> str:
        """Return the model of which a sound copy is kept and whose SHA-256 begins so; RegraftError if none does."""
        digests = sorted(path.stem for path in self.versions.glob("*.onnx") if is_sha256(path.stem))
        found = [digest for digest in digests if digest.startswith(beginning.lower()) and self.is_kept(digest)]
        if len(found) == 1:
            return found[0]
        raise RegraftError(
            f"the beginning of the SHA-256 of one model in {shown_path(self.versions)} was expected. Received: "
            f"'{beginning}', which fits {len(found)} sound ones. There are: "
            f"{', '.join(digest[:12] for digest in digests) or 'none'}."
        )

    def reference_of(self, digest: str) -> "Reference | None":
        """Return what a model was trained on; None where that was not kept, or is damaged."""
        return self._reference(digest, "")[0]

    def find_reference(self) -> "tuple[Reference | None, str]":
        """Return what the model in production was trained on, if that is known, and a sentence that says which it is.

        A damaged file is a warning, no error: a night's training must not wait for its removal.
        """
        standing = self.standing()
        digest = standing.digest or standing.named
        if digest is None:
            nothing = "No model was in production when this was checked, so the photos were compared with nothing."
            return None, f"Warning: {standing.problem}" if standing.problem else nothing
        promoted = [f", since {change.at[:10]}" for change in self.history() if change.sha256 == digest]
        return self._reference(digest, f"the model in production ({digest[:12]}{''.join(promoted[-1:])})")

    def anchor_reference(self) -> "tuple[Reference | None, str]":
        """Return what the anchor was trained on, if it is another model than that in production, and a sentence."""
        standing, (anchor, _) = self.standing(), self.anchored()
        if anchor is None or anchor == (standing.digest or standing.named):
            return None, "The model in production is the anchor."
        return self._reference(anchor, f"the anchor ({anchor[:12]})")

    def _reference(self, digest: str, model: str) -> "tuple[Reference | None, str]":
        from regraft.production.training_data import read_reference  # it needs pandas, and a run without news does not

        path = self.data_of(digest)
        if not path.is_file():
            return None, f"It is not known what {model} was trained on, so the photos are not compared with anything."
        try:
            reference = read_reference(path)
        except InvalidData as error:
            return None, f"Warning: the photos are not compared with those of {model}, because {error}"
        return reference, f"Compared with the {len(reference.rows)} photos of {model}. {reference.lacking}".rstrip()


def load_former(path: Path) -> "tuple[OnnxClassifier | None, str]":
    """Return a model that is or was in production, or None and a sentence on why it cannot be compared."""
    import numpy as np

    from regraft.export.calibration import as_learnt
    from regraft.export.classifier import OnnxClassifier

    try:
        classifier = OnnxClassifier(path, is_own=False)
        as_learnt(np.zeros((0, len(classifier.class_names)), np.float32), classifier.metadata)
        return classifier, ""
    except RegraftError as error:
        return None, str(error).removesuffix(" Export it again.")
    except (ValueError, OSError) as error:
        return None, f"{shown_path(path)} cannot be compared ({error})."


def is_sha256(text: str) -> bool:
    """Whether a name can be that of a model."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def read_digest(path: Path) -> tuple[str | None, str]:
    """Return the SHA-256 of a regular file's bytes, or None and why there is none."""
    try:
        if path.is_symlink():
            return None, "it is a link, whose target can change at any time"
        with open_regular(path, os.O_NOFOLLOW) as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), ""
    except FileNotFoundError:
        return None, _MISSING
    except OSError as error:
        return None, error.strerror or str(error)


def _minute(at: str) -> str:
    return f"{at[:16].replace('T', ' ')} UTC"
