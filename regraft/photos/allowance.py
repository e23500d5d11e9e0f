"""How much memory a process may take for one file; the kernel refuses it more, and everybody else on the machine lives.

What a header promises decides, so bytes that unfold to more than that harm nobody. The limit is one on address space
(RLIMIT_AS), counted from what the process has mapped before its first file.
"""

import ctypes
import mmap
import os
import resource
import sys
from pathlib import Path

_SLACK = 64 * 2**20  # tables of decoders and small objects, whatever the size of the image
_GROWTH = _SLACK // 2  # memory that files may leave behind before the process has to be replaced
_STATM = Path("/proc/self/statm")


class Allowance:
    """The limit on this process; Linux knows such limits, on other systems there is none."""

    def __init__(self) -> None:
        self._is_limited = sys.platform == "linux"
        self._outer = resource.getrlimit(resource.RLIMIT_AS)
        self._mapped = self._now()
        self._needed = 0

    def allow(self, needed: int) -> None:
        """Let the next file take so many bytes."""
        self._needed = needed
        limit = self._mapped + _SLACK + needed
        if self._outer[0] != resource.RLIM_INFINITY:
            limit = min(limit, self._outer[0])
        self._set(limit)

    def lift(self) -> None:
        """Go back to the limit that the process was started with, if any."""
        self._set(self._outer[0])

    def was_exceeded(self) -> bool:
        """Whether memory that was refused would have been given without the limit: the file is to blame then.

        Ends the limit.
        """
        if not self._is_limited:
            return False
        self.lift()
        try:
            mmap.mmap(-1, _SLACK + self._needed).close()
        except OSError:  # so would any other file have been refused: the machine is to blame
            return False
        return True

    def is_used_up(self) -> bool:
        """Whether decoders have lost so much memory that the next file would be judged by less."""
        if self._is_limited and self._now() > self._mapped + _GROWTH:
            # The C library keeps what was freed for the next time; GNU's can be asked for it.
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
                trim(0)
            return self._now() > self._mapped + _GROWTH
        return False

    def _set(self, limit: int) -> None:
        if self._is_limited:
            resource.setrlimit(resource.RLIMIT_AS, (limit, self._outer[1]))

    def _now(self) -> int:
        return int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if self._is_limited else 0
