"""The logs of production: log.jsonl has a line per change, verdicts.jsonl one per verdict of the gate.

Lines are appended, never rewritten. Their contents are data: a line that is damaged is skipped and counted, a name in
it that is no SHA-256 never becomes a path, and of a file of any size only the end is read.
"""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regraft.core.addresses import shown_path
from regraft.core.errors import RegraftError, safe_text
from regraft.core.files import NO_FILE, open_regular

VERDICTS = "verdicts.jsonl"  # in the folder of production
_READ_BYTES = 8_000_000  # of the end of a file: ten thousand lines
_LINE_BYTES = 20_000
_SKETCH = 48  # digests that stand for a test set
_DIGITS = 10  # of each
_SAME = 0.5  # test sets that share so much of their photos count as one


def _one_line(text: str) -> str:
    """Words reach terminals and pages; a control character in them could rewrite what is seen there."""
    return safe_text(" ".join(text.split("\n")))


Words = Annotated[str, AfterValidator(_one_line)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(\+00:00|Z)$")]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from, as far as that is known; not in the file itself, so that equal models are equal."""

    data: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None  # MD5 of the photos, as in DVC
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")] | None = None  # of the code, in git
    verdict: Words | None = None  # of the gate; None where it was not asked


@dataclass(frozen=True, slots=True)
class Change:
    """One line of log.jsonl."""

    at: _Time  # ISO 8601, UTC
    # restored: a sound copy of the same model replaced a damaged one; found: put there by hand, or its line was lost;
    # anchored: a person moved the anchor, and production stayed
    action: Literal["promoted", "rolled back", "restored", "found", "anchored"]
    sha256: Sha256  # of the model in production from then on
    words: Words  # why
    left: Sha256 | None = None  # the model that was in production before a rollback
    approved_by: Words | None = None  # the person who decided, where one did
    origin: Origin | None = None  # of the model; None where nothing is known
    anchor: Sha256 | None = None  # the anchor from then on; None: the one before, but after a rollback the model itself


@dataclass(frozen=True, slots=True)
class Look:
    """One line of verdicts.jsonl.

    Every look at the same test photos lets chance choose a little: the model that stays is a little luckier than it is
    good. So the lines tell how often test photos were used.
    """

    at: str  # ISO 8601, UTC
    name: str  # of the verdict
    challenger: Sha256
    champion: Sha256 | None  # None where none was in production
    n: int  # photos that were compared
    b: int
    c: int
    sketch: Annotated[list[str], Field(max_length=_SKETCH)]  # of the test photos
    origin: Origin | None = None  # of the challenger
    base: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None  # name of the base that it comes from
    # By SHA-256 of an older model that the challenger was compared with: its accuracy less that one's.
    changes: dict[Sha256, Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]] = field(default_factory=dict)


T = TypeVar("T")
_adapter_of = cache(TypeAdapter)


class Log(Generic[T]):
    """A file of lines, each of which is one value in JSON."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path, self._adapter = path, _adapter_of(kind)

    def read(self) -> tuple[list[T], int]:
        """Return the values, oldest first, and how many lines are damaged, without half a last line.

        A file that cannot be read counts as one such line.
        """
        try:
            with open_regular(self.path) as file:
                start = max(0, os.fstat(file.fileno()).st_size - _READ_BYTES)
                file.seek(start)
                *lines, last = file.read(_READ_BYTES).split(b"\n")
        except FileNotFoundError:
            return [], 0
        except OSError:
            return [], 1
        if start:
            lines = lines[1:] or [b"?"]  # the first one is cut off
        values = [self.parse(line) for line in lines if line]
        end = self.parse(last)  # an editor may have omitted the end of the line
        found = [value for value in [*values, end] if value is not None]
        return found, len(values) - len(found) + (end is not None)

    def parse(self, line: bytes) -> T | None:
        """Return the value of a line, or None if it is damaged."""
        if len(line) > _LINE_BYTES:
            return None
        try:
            return self._adapter.validate_json(line)
        except ValidationError:
            return None

    def line(self, value: T) -> bytes:
        """Return a value as it stands in the log, without the end of the line."""
        return self._adapter.dump_json(value, exclude_defaults=True)

    def check(self) -> None:
        """Raise RegraftError if a line could not be added, before anything is changed that a line has to be about."""
        try:
            os.close(self._open())
        except OSError as error:
            raise RegraftError(
                f"{shown_path(self.path)} should be a file that can be written to ({error.strerror}): every change of "
                f"production is recorded there. Make it writable, or move it away; production stays as it is."
            ) from None

    def append(self, value: T) -> None:
        """Add a line in one write, and make sure that it reaches the disk; the caller holds the lock of production."""
        file, line = self._open(), self.line(value) + b"\n"
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # a kill left half a line
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        finally:
            os.close(file)

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # O_NONBLOCK: a named pipe would wait for a reader.
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o644)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, NO_FILE, str(self.path))
        return file


def read_change(path: Path) -> Change | None:
    """Return the change in a small file, or None if there is no such file or it is damaged."""
    changes, _ = Log(path, Change).read()
    return changes[0] if len(changes) == 1 else None


def change_log(folder: Path) -> Log[Change]:
    """Return log.jsonl of a folder of production."""
    return Log(folder / "log.jsonl", Change)


def verdict_log(folder: Path) -> Log[Look]:
    """Return verdicts.jsonl of a folder of production."""
    return Log(folder / VERDICTS, Look)


def sketch_of(digests: Sequence[str]) -> list[str]:
    """Return what stands for a set of photos: the smallest of their SHA-256, of which two sets share what they share.

    Source: the bottom-k sketch of Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007.
    """
    return [digest[:_DIGITS] for digest in sorted(set(digests))[:_SKETCH]]


def count_looks(looks: Sequence[Look], sketch: Sequence[str], challenger: str) -> int:
    """Return how many other models were judged on a test set that is largely this one."""
    return len({look.challenger for look in looks if _share(look.sketch, sketch) >= _SAME} - {challenger})


def recent_changes(looks: Sequence[Look], sketch: Sequence[str], anchor: str, challenger: str) -> tuple[float, ...]:
    """Return by how much other models were better than an anchor on largely this test set, the newest last."""
    found: dict[str, float] = {}
    for look in looks:
        if anchor in look.changes and _share(look.sketch, sketch) >= _SAME:
            found.pop(look.challenger, None)
            found[look.challenger] = look.changes[anchor]
    found.pop(challenger, None)
    return tuple(found.values())


def _share(one: Sequence[str], other: Sequence[str]) -> float:
    """The estimated Jaccard index of two sets of photos, from their sketches."""
    smallest = sorted({*one, *other})[:_SKETCH]
    both = set(one) & set(other)
    return sum(digest in both for digest in smallest) / len(smallest) if smallest else 1.0
