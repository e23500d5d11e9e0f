"""What a file holds, found out by a process of its own: no file, whatever it holds, can end a run or hold it up.

A decoder is C code: hostile bytes may crash it or keep it busy for hours, and no thread can be stopped. A process can,
and the kernel does it: before each file the process sets itself an alarm, which ends it.

    python -m regraft.photos.decoder MAX_PIXELS MAX_SECONDS     a path per line in, facts per line out, all as JSON
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from regraft.photos.images import FORMATS, load_rgb, to_rgb
from regraft.photos.statistics import describe

_READY = "ready"
_EXIF_ORIENTATION = 0x0112  # tag number, Exif 2.3, section 4.6.4
_BITS_PER_SAMPLE = 258  # tag number, TIFF 6.0, section 3


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one file may ask of the machine."""

    max_pixels: int  # width x height; an image with more is not decoded
    max_seconds: float  # that decoding may take


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What one file turned out to be; `problem` says why it cannot be used and is None for a good image."""

    format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    bit_depth: int | None = None
    orientation: int | None = None
    frames: int | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    entropy: float | None = None
    phash: str | None = None
    problem: str | None = None


def inspect(path: Path, *, max_pixels: int) -> ImageFacts:
    """Decode a file completely and return what it is; bad contents are a `problem`, never an exception.

    The content decides, not the name. Complete decoding is what finds truncated files: their headers are fine.

    Args:
        path: any file.
        max_pixels: images with more pixels are not decoded, whatever their header promises.

    Raises:
        OSError: the machine failed (disk, network, permission, memory), which says nothing about the contents.
    """
    facts: dict[str, Any] = {}
    try:
        with _opened(path, max_pixels) as image:
            facts.update(
                format=image.format,
                width=image.width,
                height=image.height,
                mode=image.mode,
                bit_depth=_bit_depth(image),
                orientation=_orientation(image),
                frames=getattr(image, "n_frames", 1),
            )
            facts.update(asdict(describe(to_rgb(image))))
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        return ImageFacts(problem="the file is empty" if empty else "not an image that can be read")
    except Exception as error:  # decoders raise anything on hostile bytes, and the file is reported by name
        if _is_of_the_machine(error):
            number = getattr(error, "errno", None) or errno.ENOMEM
            raise OSError(number, os.strerror(number)) from error
        return ImageFacts(**facts, problem=f"cannot be decoded: {_one_line(error)}")
    return ImageFacts(**facts)


class Inspectors:
    """Processes that inspect files, as many as there are threads that ask; each is started when it is first needed."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._free: deque[subprocess.Popen[str]] = deque()
        self._is_closed = False

    def __enter__(self) -> "Inspectors":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._end_free()

    def _end_free(self) -> None:
        while self._free:
            process = self._free.pop()
            process.communicate()  # it ends when nothing more can come

    def inspect(self, path: Path) -> ImageFacts:
        """Do what `inspect` does, within the limits; safe to call from several threads.

        Raises:
            TimeoutError: it took longer than the limits allow.
            OSError: the machine failed, or the decoder crashed.
        """
        process = self._send(json.dumps(str(path.absolute())) + "\n")
        assert process.stdout
        answer = process.stdout.readline()
        if not answer:
            raise self._error(process)
        self._free.append(process)
        if self._is_closed:  # a run was interrupted while this thread waited for its file
            self._end_free()
        facts = json.loads(answer)
        if "errno" in facts:
            raise OSError(facts["errno"], os.strerror(facts["errno"]))
        return ImageFacts(**facts)

    def _send(self, question: str) -> "subprocess.Popen[str]":
        """Give the question to a free process and return it; one that died while it was idle is replaced."""
        while True:
            try:
                process = self._free.pop()
            except IndexError:
                process = self._start()
            assert process.stdin
            try:
                process.stdin.write(question)
                process.stdin.flush()
            except BrokenPipeError:
                process.communicate()
            else:
                return process

    def _start(self) -> "subprocess.Popen[str]":
        root = str(Path(__file__).parents[2])
        command = [sys.executable, "-m", __name__, str(self._limits.max_pixels), str(self._limits.max_seconds)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the run, which ends its processes itself
        )
        assert process.stdout
        if process.stdout.readline().strip() != _READY:
            process.communicate()
            raise RuntimeError(f"`{' '.join(command)}` ended with status {process.returncode} before the first file")
        return process

    def _error(self, process: "subprocess.Popen[str]") -> OSError:
        status = process.wait()
        process.communicate()
        if status == -signal.SIGALRM:
            seconds = self._limits.max_seconds
            return TimeoutError(0, f"decoding takes longer than {seconds:g} s (validate_data.max_seconds)")
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return OSError(0, f"the decoder crashed on it ({how})")


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """`Image.open`, refusing more than `max_pixels` before anything is decoded."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            size = f"{image.width} x {image.height} pixels"
            raise ValueError(f"{size} is above validate_data.max_pixels ({max_pixels})")
        yield image


def _orientation(image: Image.Image) -> int:
    # Cameras and editors write all kinds of things into this tag; only a number, of 16 bits by the standard, turns it.
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if isinstance(value, int) and 0 <= value < 2**16 else 1


def _bit_depth(image: Image.Image) -> int:
    """Bits of one channel in the file; Pillow's mode says it only of what it makes of them."""
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0]
        return bits if isinstance(bits, int) else 8
    # Before it is decoded, a PNG's pixels have a name such as RGB;16B or L;2.
    tiles = getattr(image, "tile", [])
    raw = tiles[0].args if tiles else ""
    written = re.search(r";(\d+)", raw if isinstance(raw, str) else "")
    return int(written[1]) if written else {"1": 1, "I": 32, "F": 32, "I;16": 16}.get(image.mode, 8)


def _is_of_the_machine(error: Exception) -> bool:
    """Whether memory, the disk or the network is to blame and not the file."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return True
    # Decoders' own errors have no number; EINVAL is a seek to where hostile bytes point.
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def main() -> None:
    """Inspect the files whose paths come in, one after the other, until no more can come."""
    max_pixels, max_seconds = int(sys.argv[1]), float(sys.argv[2])
    # What the first picture makes Pillow and others import must not count as time for the first file.
    file = BytesIO()
    Image.new("RGB", (9, 9)).save(file, "PNG")
    describe(Image.fromarray(load_rgb(file)))
    answers = os.fdopen(os.dup(1), "w")
    print(_READY, file=answers, flush=True)
    # Decoders print what they think of a file; it must not get between the answers.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, max_seconds)
        try:
            facts: dict[str, object] = asdict(inspect(Path(json.loads(line)), max_pixels=max_pixels))
        except OSError as error:
            facts = {"errno": error.errno}
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(facts), file=answers, flush=True)


if __name__ == "__main__":
    main()
