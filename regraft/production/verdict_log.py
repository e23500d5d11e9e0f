"""verdicts.jsonl: one line per verdict of the gate, so that it is known how often test photos were looked at.

Every look at the same test photos lets chance choose a little: the model that stays is a little luckier than it is
good. Lines are appended, never rewritten; one that is none of ours is passed over, as in `change_log`.
"""

import os
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regraft.production.change_log import Origin, Sha256, end_of

FILE = "verdicts.jsonl"  # in the folder of production
_READ_BYTES = 8_000_000  # of the end of the file: about ten thousand verdicts
_SKETCH = 48  # digests that stand for a test set
_DIGITS = 10  # of each
_SAME = 0.5  # test sets that share so much of their photos count as one


@dataclass(frozen=True, slots=True)
class Look:
    """One line of the file."""

    at: str  # ISO 8601, UTC
    name: str  # of the verdict
    challenger: Sha256
    champion: Sha256 | None  # None where none was in production
    n: int  # photos that were compared
    b: int
    c: int
    sketch: Annotated[list[str], Field(max_length=_SKETCH)]  # of the test photos
    origin: Origin | None = None  # of the challenger; None in lines of old
    base: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None  # name of the base that it comes from
    # By SHA-256 of an older model that the challenger was compared with: its accuracy less that one's.
    changes: dict[Sha256, Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]] = field(default_factory=dict)


_ADAPTER = TypeAdapter(Look)


def sketch_of(digests: Sequence[str]) -> list[str]:
    """Return what stands for a set of photos: the smallest of their SHA-256, of which two sets share what they share.

    Source: the bottom-k sketch of Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007.
    """
    return [digest[:_DIGITS] for digest in sorted(set(digests))[:_SKETCH]]


def read_looks(path: Path) -> list[Look]:
    """Return the verdicts, oldest first; none where the file is missing or cannot be read."""
    try:
        contents, is_whole = end_of(path, _READ_BYTES)
    except OSError:
        return []
    looks = []
    for line in contents.split(b"\n")[0 if is_whole else 1 :]:
        try:
            looks.append(_ADAPTER.validate_json(line))
        except ValidationError:
            continue
    return looks


def count_looks(looks: Sequence[Look], sketch: Sequence[str], challenger: str) -> int:
    """Return how many other models were judged on a test set that is largely this one."""
    return len({look.challenger for look in looks if _share(look.sketch, sketch) >= _SAME} - {challenger})


def recent_changes(looks: Sequence[Look], sketch: Sequence[str], anchor: str, challenger: str) -> tuple[float, ...]:
    """Return what other models were better than an anchor on a test set that is largely this one, the newest last."""
    found: dict[str, float] = {}
    for look in looks:
        if anchor in look.changes and _share(look.sketch, sketch) >= _SAME:
            found.pop(look.challenger, None)
            found[look.challenger] = look.changes[anchor]
    found.pop(challenger, None)
    return tuple(found.values())


def append_look(path: Path, look: Look) -> None:
    """Add a line, in one write; the caller holds the lock of production."""
    line = _ADAPTER.dump_json(look) + b"\n"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line  # a kill left half a line
        os.write(file, line)
        os.fsync(file)
    finally:
        os.close(file)


def _share(one: Sequence[str], other: Sequence[str]) -> float:
    """The estimated Jaccard index of two sets of photos, from their sketches."""
    smallest = sorted({*one, *other})[:_SKETCH]
    both = set(one) & set(other)
    return sum(digest in both for digest in smallest) / len(smallest) if smallest else 1.0
