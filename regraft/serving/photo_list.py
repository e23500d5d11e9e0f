"""Which photos are meant: files, folders with all that is in them, and a list on standard input. No file is opened."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LIST = "-"  # a list of paths on standard input
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A path that is asked about."""

    path: str  # as the system writes it; a byte that is no UTF-8 is a lone surrogate in it
    is_named: bool = True  # by the caller, and not found in a folder: it has a row whatever it is
    problem: str | None = None  # why there is no file to open

    @property
    def text(self) -> str:
        r"""The path as text that can be written anywhere: a byte that is no UTF-8 is written as \xff."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


def list_photos(
    paths: Iterable[str], standard_input: BinaryIO | None = None, *, end: bytes = b"\n"
) -> Iterator[Listed]:
    """Yield every file that paths lead to, in the order of `paths`; of a folder, all in it by name.

    Args:
        paths: files, folders, and `-` for the list, which may name folders too.
        standard_input: the list.
        end: of each path in it; with b"\\0" a name may hold a line feed.
    """
    for path in paths:
        if path == LIST and standard_input is not None:
            for each in _read_list(standard_input, end):
                yield from _list_one(each)
        else:
            yield from _list_one(path)


def problem_of(mode: int) -> str | None:
    """Return why what has this `st_mode` cannot be a photo; None of a file."""
    return None if stat.S_ISREG(mode) else f"it is {_KINDS.get(stat.S_IFMT(mode), 'no file')}"


def reason_of(error: OSError | ValueError) -> str:
    """Return what the system said, in a few words; each version of Python says its ValueError in other ones."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else "a path cannot have a zero byte in it"


def _read_list(stream: BinaryIO, end: bytes) -> Iterator[str]:
    contents = stream.read().removeprefix(_BYTE_ORDER_MARK)
    for entry in contents.split(end):
        # An editor on Windows ends its lines with two letters.
        if path := entry.removesuffix(b"\r") if end == b"\n" else entry:
            yield os.fsdecode(path)


def _list_one(path: str) -> Iterator[Listed]:
    if not path:  # an unset variable of a script, and not the folder it stands in
        yield Listed(path, problem="the path is empty")
        return
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        yield Listed(path, problem=reason_of(error))
        return
    if stat.S_ISDIR(mode):
        yield from _walk(path)
    else:
        yield Listed(path, problem=problem_of(mode))


def _walk(root: str) -> Iterator[Listed]:
    """Yield what is in a folder; links are followed, each folder once, and hidden folders are left out."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                # Of a folder that may be listed but not searched nothing but names can be found out.
                found = sorted(((entry.name, entry.path, *_kind(entry)) for entry in entries), key=lambda each: each[0])
        except OSError as error:
            yield Listed(folder, problem=reason_of(error))
            continue
        yield from (Listed(path, False, problem) for _, path, is_folder, problem in found if not is_folder)
        folders = [path for name, path, is_folder, _ in found if is_folder and not _is_hidden(name)]
        waiting += reversed(folders)


def _kind(entry: os.DirEntry[str]) -> tuple[bool, str | None]:
    """Return whether an entry, or what its link leads to, is a folder, and why it is no file."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return False, reason_of(error)
    return stat.S_ISDIR(mode), problem_of(mode)


def _is_hidden(name: str) -> bool:
    # As in a data folder: previews, copies and what was thrown away, which nobody means.
    return name.startswith(".") or name == "__MACOSX"
