"""A photo from outside, opened: it is never waited for, and takes no more memory than its header and a limit allow."""

import errno
import os
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

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
from regraft.serving.photo_list import problem_of, reason_of

MAX_PIXELS = 120_000_000  # as validate_data.max_pixels: a larger photo would have been none in training
_SLACK = 2**26  # bytes that a small photo may take beside its pixels: metadata, previews
_LONGEST = 200  # letters of what a decoder says
Result = TypeVar("Result")


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
