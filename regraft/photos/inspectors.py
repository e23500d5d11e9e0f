"""Processes that open files for the run: no file, whatever it holds, can end a run or hold it up."""

import base64
import errno
import json
import os
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from regraft.photos import inspector
from regraft.photos.decoder import DecodeLimits, ImageFacts
from regraft.photos.memory import PHOTO_MEMORY

# One thread and one heap, because address space of others would count as memory of the file, and large blocks outside
# of it, which go back to the kernel at once and leave no gaps (`regraft.photos.allowance`).
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**22)}


class Inspectors:
    """Processes that inspect files, as many as there are threads that ask; each is started when it is first needed."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._free: deque[subprocess.Popen[str]] = deque()
        self._busy: set[subprocess.Popen[str]] = set()
        self._is_closed = False

    def __enter__(self) -> "Inspectors":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        for process in list(self._busy):  # the run was stopped, and nobody waits for their files any more
            process.kill()
        self.rest()

    def rest(self) -> None:
        """End the processes that have no file; others start when there is one."""
        with suppress(IndexError):
            while True:
                self._free.pop().communicate()  # it ends when nothing more can come

    def inspect(self, path: Path) -> ImageFacts:
        """Do what `decoder.inspect` does, within the limits; safe to call from several threads.

        Raises:
            TimeoutError: it took longer than the limits allow.
            OSError: the machine failed, or the decoder crashed.
        """
        return ImageFacts(**self._ask(path))

    def thumbnail(self, path: Path, *, side: int, is_square: bool = False) -> np.ndarray | None:
        """Do what `decoder.draw_thumbnail` does, within the limits; None if the photo cannot be drawn, or not any more.

        Returns:
            uint8, shape (height, width, 3).
        """
        try:
            answer = self._ask(path, side=side, is_square=is_square)
        except OSError:
            return None
        if "pixels" not in answer:
            return None
        width, height = answer["size"]
        return np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8).reshape(height, width, 3)

    def _ask(self, path: Path, **how: object) -> dict[str, Any]:
        """Ask a free process about a file; it goes on to decode when the budget has room for what it needs."""
        process = self._send(json.dumps({"path": str(path.absolute()), **how}) + "\n")
        try:
            answer = self._answer_of(process)
            if "needs" in answer:
                with PHOTO_MEMORY.take(answer["needs"]):
                    answer = self._answer_of(process, "\n")
        finally:
            self._busy.discard(process)
        if answer.pop("is_last"):
            process.communicate()
        else:
            self._free.append(process)
        if self._is_closed:  # a run was interrupted while this thread waited for its file
            self.rest()
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer

    def _answer_of(self, process: "subprocess.Popen[str]", go_on: str = "") -> dict[str, Any]:
        assert process.stdin
        assert process.stdout
        with suppress(BrokenPipeError):
            process.stdin.write(go_on)
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise self._error(process)
        return json.loads(answer)

    def _send(self, question: str) -> "subprocess.Popen[str]":
        """Give the question to a free process and return it; one that died while it was idle is replaced."""
        while True:
            if self._is_closed:
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            try:
                process = self._free.pop()
            except IndexError:
                process = self._start()
            self._busy.add(process)
            assert process.stdin
            try:
                process.stdin.write(question)
                process.stdin.flush()
            except BrokenPipeError:
                self._busy.discard(process)
                process.communicate()
            else:
                return process

    def _start(self) -> "subprocess.Popen[str]":
        root = str(Path(__file__).parents[2])
        command = [
            sys.executable,
            "-m",
            inspector.__name__,
            str(self._limits.max_pixels),
            str(self._limits.max_seconds),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])},
            start_new_session=True,  # Ctrl-C is for the run, which ends its processes itself
        )
        assert process.stdout
        if process.stdout.readline().strip() != inspector.READY:
            process.communicate()
            raise RuntimeError(f"`{' '.join(command)}` ended with status {process.returncode} before the first file")
        return process

    def _error(self, process: "subprocess.Popen[str]") -> OSError:
        with suppress(BrokenPipeError):
            process.communicate()
        status = process.returncode
        if status == -signal.SIGALRM:
            seconds = self._limits.max_seconds
            return TimeoutError(0, f"decoding takes longer than {seconds:g} s (validate_data.max_seconds)")
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return OSError(0, f"the decoder crashed on it ({how})")
