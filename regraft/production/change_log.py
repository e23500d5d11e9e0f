"""log.jsonl: one line per change of production, in the order in which they happened.

Lines are appended, never rewritten. Whatever stands in the file is data: a line that is none of ours is passed over and
counted, a name in it that is no SHA-256 never becomes a path, and of a file of any size only the end is read.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regraft.core.addresses import shown_path
from regraft.core.errors import RegraftError, safe_text
from regraft.core.files import NO_FILE, open_regular

_READ_BYTES = 4_000_000  # of the end of the file: ten thousand changes
_LINE_BYTES = 20_000


def _one_line(text: str) -> str:
    """Words reach terminals and pages; a control character in them could rewrite what is seen there."""
    return safe_text(" ".join(text.split("\n")))


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(\+00:00|Z)$")]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from, as far as that is known. The file itself names none of it: it has equal bytes then."""

    data: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = (
        None  # MD5 of the photos, as DVC says it
    )
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")] | None = None  # of the code, in git
    verdict: Annotated[str, AfterValidator(_one_line)] | None = None  # of the gate; None where it was not asked


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the log."""

    at: _Time  # ISO 8601, UTC
    # restored: a sound copy of the same model replaced a damaged one; found: put there by hand, or its line was lost;
    # anchored: a person moved the anchor, and production stayed
    action: Literal["promoted", "rolled back", "restored", "found", "anchored"]
    sha256: Sha256  # of the model in production from then on
    words: Annotated[str, AfterValidator(_one_line)]  # why
    left: Sha256 | None = None  # the model that was in production before a rollback
    approved_by: Annotated[str, AfterValidator(_one_line)] | None = None  # the person who decided, where one did
    origin: Origin | None = None  # of the model; None in lines of old, and where nothing is known
    anchor: Sha256 | None = None  # the anchor from then on; None: the one before, but after a rollback the model itself

    def line(self) -> bytes:
        """Return the change as it stands in the log, without the end of the line."""
        return _ADAPTER.dump_json(self, exclude_none=True)


_ADAPTER = TypeAdapter(Change)


def parse_change(line: bytes) -> Change | None:
    """Return the change that a line says, or None if it says none."""
    if len(line) > _LINE_BYTES:
        return None
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None


def read_change(path: Path) -> Change | None:
    """Return the change that a small file holds, or None if there is no such file or it holds none."""
    try:
        return parse_change(end_of(path, _LINE_BYTES + 1)[0])
    except OSError:
        return None


class ChangeLog:
    """The file log.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[list[Change], int]:
        """Return the changes, oldest first, and how many lines say none; half a last line, left by a kill, is neither.

        A file that cannot be read is one such line.
        """
        try:
            contents, is_whole = end_of(self.path, _READ_BYTES)
        except FileNotFoundError:
            return [], 0
        except OSError:
            return [], 1
        *lines, last = contents.split(b"\n")
        if not is_whole:
            lines = lines[1:] or [b"?"]  # the first one is cut off
        changes = [parse_change(line) for line in lines if line]
        changes.append(parse_change(last))  # an editor may have left out the end of the line
        found = [change for change in changes if change]
        return found, len(changes) - len(found) - (changes[-1] is None)

    def check(self) -> None:
        """Raise RegraftError if a line could not be added, before anything is changed that a line has to be about."""
        try:
            os.close(self._open())
        except OSError as error:
            raise RegraftError(
                f"{shown_path(self.path)} should be a file that can be written to ({error.strerror}), and every change "
                f"of production is written down there. Make it writable, or move it away; production stays as it is."
            ) from None

    def append(self, change: Change) -> None:
        """Add a line, and make sure that it reaches the disk; half a last line goes."""
        file = self._open()
        try:
            size = os.fstat(file).st_size
            start = max(0, size - _LINE_BYTES)
            end = os.pread(file, size - start, start)
            last = end[end.rfind(b"\n") + 1 :]
            begin = b""
            if parse_change(last):
                begin = b"\n"
            elif last and (start == 0 or len(last) < len(end)):
                os.ftruncate(file, size - len(last))
            elif last:
                begin = b"\n"  # longer than any line of ours
            line = begin + change.line() + b"\n"
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the half that is there counts for nothing
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


def end_of(path: Path, count: int) -> tuple[bytes, bool]:
    """Return the last bytes of a regular file, and whether that is all of it."""
    with open_regular(path) as file:
        start = max(0, os.fstat(file.fileno()).st_size - count)
        file.seek(start)
        return file.read(count), start == 0
