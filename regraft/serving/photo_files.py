"""Photos from outside: which files are meant, and each of them opened.

Paths are files, folders with all that is in them, and a list on standard input. Opening a file never waits, and
decoding it takes no more memory than its header and a limit allow.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from regraft.core.errors import InvalidModel
from regraft.photos.images import is_heif, open_image, start_of, to_rgb
from regraft.photos.kinds import judge
from regraft.photos.memory import (
    FILE_MEMORY,
    LARGEST_BYTES_PER_PIXEL,
    PHOTO_MEMORY,
    bytes_needed,
    decoded_pixels,
)

MAX_PIXELS = 120_000_000  # as validate_data.max_pixels: a larger photo would have been none in training
_SLACK = 2**26  # bytes that a small photo may take beside its pixels: metadata, previews
_LONGEST = 200  # letters of what a decoder says
Result = TypeVar("Result")
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
    problem: str | None = None  # why there is nothing to open

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
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises where a folder may not be searched)
        yield from _walk(path)
    else:
        yield Listed(path)


def _walk(root: str) -> Iterator[Listed]:
    """Yield what is in a folder; links are followed, each folder once, and hidden folders are left out."""
    seen: set[tuple[int, int]] = set()
    failed: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=failed.append, followlinks=True):
        yield from _unlisted(failed)
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Previews, copies and what was thrown away, as in a data folder.
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        paths = (os.path.join(folder, name) for name in sorted(names))  # noqa: PTH118 (the path as it was given)
        yield from (Listed(path, is_named=False) for path in paths)
    yield from _unlisted(failed)


def _unlisted(failed: list[OSError]) -> Iterator[Listed]:
    while failed:
        error = failed.pop()
        yield Listed(str(error.filename), problem=reason_of(error))


class Unreadable(Exception):
    """A file that is no photo, or none that can be read; the message says why, in a few words."""

    def __init__(self, reason: str, *, is_photo: bool = True) -> None:
        """Note why, and whether the file was meant as a photo at all."""
        super().__init__(reason)
        self.is_photo = is_photo


def with_pixels(path: str, function: Callable[[np.ndarray], Result], *, max_pixels: int = MAX_PIXELS) -> Result:
    """Return what a function makes of a photo's pixels, uint8 RGB, upright, (height, width, 3), as of `load_rgb`.

    Args:
        path: of any file.
        function: is called while memory for the photo, and for the model that looks at it, is set aside.
        max_pixels: width times height of the largest photo that is decoded, whatever is really in the file.

    Raises:
        Unreadable: the file is no photo that can be read, or `function` failed on it.
        InvalidModel: `function` found that the model is to blame.
    """
    try:
        file = _open(path)
    except (OSError, ValueError) as error:
        raise Unreadable(reason_of(error)) from None
    with file:
        return _with_pixels(file, path, function, max_pixels)


def _open(path: str) -> BufferedReader:
    if problem := problem_of(Path(path).stat().st_mode):
        raise OSError(errno.EINVAL, problem)
    # Without O_NONBLOCK, to open a pipe that somebody put there just now would wait for its other end.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if problem := problem_of(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, problem)
    return file


def _with_pixels(file: BufferedReader, path: str, function: Callable[[np.ndarray], Result], max_pixels: int) -> Result:
    size, format_name = os.fstat(file.fileno()).st_size, None
    most = LARGEST_BYTES_PER_PIXEL * max_pixels + _SLACK
    try:
        _refuse(size > most, f"the file is {_megabytes(size)}, above the {_megabytes(most)} of any photo", max_pixels)
        with FILE_MEMORY.take(size), open_image(file) as image:
            format_name = image.format
            _check(image, path, file, size, max_pixels)
            with PHOTO_MEMORY.take(bytes_needed(image, size)):
                return function(to_rgb(image))
    except InvalidModel:
        raise
    except UnidentifiedImageError:
        problem = "not an image that can be read" if size else "the file is empty"
    except Exception as error:  # decoders raise anything on hostile bytes, and the file is named
        problem = _in_words(error)
    file.seek(0)
    if format_name is None and is_heif(start_of(file)):  # also where its library is missing, which `problem` says
        format_name = "HEIF"
    is_photo, reason = judge(path, file, format_name=format_name, problem=problem)
    raise Unreadable(reason or problem, is_photo=is_photo)


def _check(image: Image.Image, path: str, file: BufferedReader, size: int, max_pixels: int) -> None:
    """Raise ValueError unless an opened image may be decoded."""
    pixels = decoded_pixels(image)
    words = f"{image.width} x {image.height} pixels"
    if pixels > image.width * image.height:
        words = f"a tile of {pixels} pixels"
    _refuse(pixels > max_pixels, words, max_pixels)
    needed, most = bytes_needed(image, size), LARGEST_BYTES_PER_PIXEL * max_pixels + _SLACK
    _refuse(needed > most, f"as {image.format} it takes {_megabytes(needed)} of memory", max_pixels)
    # What a camera calls raw often is a TIFF file, in which a decoder finds a small preview.
    if problem := judge(path, file, format_name=image.format, problem=None)[1]:
        raise ValueError(problem)


def _refuse(is_too_large: bool, words: str, max_pixels: int) -> None:
    if is_too_large:
        raise ValueError(f"{words}, more than --max-pixels {max_pixels} allows")


def _in_words(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:
        return reason_of(error)
    words = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
    return words if isinstance(error, ValueError) else f"cannot be decoded: {words}"


def _megabytes(size: int) -> str:
    return f"{size / 10**6:.0f} MB"
