"""Files that no decoder finishes: how much time they may cost in one run, and when each is tried again.

Such a file may be hostile, or the machine was busy. Nobody can tell, so it is tried again, each time after a longer
pause. Until then it is quarantined, and the reason says when.
"""

import errno
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

from regraft.photos.decoder import DecodeLimits, ImageFacts
from regraft.photos.inspectors import Inspectors

_PAUSES = (1, 2, 4, 8, 16, 30)  # days after the first, second, ... attempt; then always the last
# When so many files have taken all of max_seconds, the next ones get a tenth of it, and when as much time is lost once
# more, a hundredth. After that nothing new is tried. So any number of slow files costs a run 3 x 16 x max_seconds at
# most, divided by the threads, and ordinary photos, which take milliseconds, are read beside hundreds of slow ones.
_FILES = 16
_SHARES = (1.0, 0.1, 0.01)
_LEAST_SECONDS = 0.5  # that a file gets; a photo of 12 megapixels takes half of it
_NEXT_RUN = (
    f"not decoded yet: files that are too slow have taken the time of {_FILES} x validate_data.max_seconds, which is "
    f"as much as one run spends on them; tried again when photos are validated next"
)


@dataclass(frozen=True, slots=True)
class Undecoded:
    """Why a file was not decoded, although its content may be good."""

    words: str
    was_tried: bool = True  # False: it had no chance in this run, or not as much time as others


class PatientInspectors:
    """Inspectors that are less patient with the next file the more time was lost on slow ones."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._lost = 0.0  # seconds
        self._lock = Lock()
        self._open = ExitStack()
        self._inspectors: dict[int, Inspectors] = {}

    def __enter__(self) -> "PatientInspectors":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def rest(self) -> None:
        """End the processes that have no file; others start when there is one."""
        with self._lock:
            opened = list(self._inspectors.values())
        for inspectors in opened:
            inspectors.rest()

    def inspect(self, file: Path, *, was_slow: bool) -> ImageFacts | Undecoded:
        """Decode a file if there is time for it; safe to call from several threads.

        Args:
            file: any.
            was_slow: whether it was too slow before; then it is tried with all the time or not at all.

        Raises:
            OSError: the disk or the network failed.
        """
        level = int(self._lost / (_FILES * self._limits.max_seconds))
        if level >= (1 if was_slow else len(_SHARES)):
            return Undecoded(_NEXT_RUN, was_tried=False)
        inspectors, started = self._at(level), time.monotonic()
        try:
            return inspectors.inspect(file)
        except OSError as error:
            # A crash of the decoder has no number; memory that ends is as likely its doing as the machine's.
            if error.errno not in (None, 0, errno.ENOMEM):
                raise
            with self._lock:
                # With the start of a process in the place of the one that was ended, which may take longer than that.
                self._lost += time.monotonic() - started
            if level and isinstance(error, TimeoutError):
                return Undecoded(_NEXT_RUN, was_tried=False)
            return Undecoded(str(error.strerror))

    def _at(self, level: int) -> Inspectors:
        with self._lock:
            if level not in self._inspectors:
                seconds = max(self._limits.max_seconds * _SHARES[level], min(self._limits.max_seconds, _LEAST_SECONDS))
                limits = replace(self._limits, max_seconds=seconds)
                self._inspectors[level] = self._open.enter_context(Inspectors(limits))
            return self._inspectors[level]


def next_try(attempts: int, moment: int) -> str:
    """Return the day from which a file is tried again, as YYYY-MM-DD in UTC.

    Args:
        attempts: that have failed; 0 if it had no chance yet.
        moment: of the last one, in nanoseconds since 1970.
    """
    pause = _PAUSES[min(attempts, len(_PAUSES)) - 1] if attempts else 0
    # Days and not hours: the run of the next night may begin a minute earlier than that of this one.
    return (datetime.fromtimestamp(moment / 1e9, UTC) + timedelta(days=pause)).date().isoformat()


def why_not_decoded(words: str, attempts: int, due: str) -> str:
    """Return the reason in the manifest for a file that was tried and is tried again."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return f"not decoded: {words}; tried {times}, and again when photos are validated on or after {due}"
