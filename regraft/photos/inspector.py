"""A process that opens files, one at a time, which `regraft.photos.inspectors` starts.

A decoder is C code: hostile bytes may crash it, keep it busy for hours or make it fill the memory, and no thread can be
stopped. A process can, and the kernel does it: before each file the process sets itself an alarm, which ends it, and a
limit on its memory.

    python -m regraft.photos.inspector MAX_PIXELS MAX_SECONDS

Lines of JSON go in and out. A question names a file. The process opens it and answers how much memory it needs; an
empty line says that there is as much. Then the process decodes the file and gives the answer.
"""

import base64
import json
import os
import signal
import sys
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from regraft.photos.allowance import Allowance
from regraft.photos.decoder import Admission, DecodeLimits, describe, draw_thumbnail, inspect, reason_of
from regraft.photos.images import open_image, to_luma
from regraft.photos.memory import LARGEST_BYTES_PER_PIXEL

READY = "ready"


class _Questions(Admission):
    """Questions of the run, and the limits within which each is answered."""

    def __init__(self, questions: TextIO, answers: TextIO, limits: DecodeLimits) -> None:
        self._questions, self._answers, self._limits = questions, answers, limits
        self._allowance = Allowance()

    def answer_all(self) -> None:
        """Answer until nothing more can come, or until this process must be replaced."""
        while line := self._questions.readline():
            question = json.loads(line)
            path = Path(question["path"])
            signal.setitimer(signal.ITIMER_REAL, self._limits.max_seconds)
            try:
                self._allowance.allow(self._bytes_to_open(path))
                answer = self._answer(path, question.get("side"), question.get("is_square", False))
            except OSError as error:
                answer = {"errno": error.errno}
            self._allowance.lift()
            signal.setitimer(signal.ITIMER_REAL, 0)
            is_last = self._allowance.is_used_up()
            self._say(answer | {"is_last": is_last})
            if is_last:
                break

    def admit(self, needed: int) -> None:
        """Ask the run for memory; the time until it is free is not the file's."""
        seconds_left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        self._say({"needs": needed})
        if not self._questions.readline():  # the run is gone
            sys.exit()
        self._allowance.allow(needed)
        signal.setitimer(signal.ITIMER_REAL, max(seconds_left, 1e-3))

    def was_exceeded(self) -> bool:
        """Whether the limit on memory was met, and not the machine's."""
        return self._allowance.was_exceeded()

    def _answer(self, path: Path, side: int | None, is_square: bool) -> dict[str, Any]:
        max_pixels = self._limits.max_pixels
        if side is None:
            return asdict(inspect(path, max_pixels=max_pixels, admission=self))
        try:
            picture = draw_thumbnail(path, side=side, is_square=is_square, max_pixels=max_pixels, admission=self)
        except Exception as error:  # as in `inspect`
            return {"problem": reason_of(error, self)}
        return {"size": picture.size, "pixels": base64.b64encode(picture.tobytes()).decode()}

    def _bytes_to_open(self, path: Path) -> int:
        """Opening reads headers, and some formats whole files; only WebP makes room for all pixels, and uses none."""
        with path.open("rb") as file:
            is_webp = file.read(12)[8:] == b"WEBP"
        return 4 * path.stat().st_size + is_webp * LARGEST_BYTES_PER_PIXEL * self._limits.max_pixels

    def _say(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)


def main() -> None:
    """Answer the questions that come in, one after the other, until no more can come."""
    # What the first picture makes Pillow and others import must not count as time or memory of the first file: SciPy
    # waits for ever where it has no room for its own buffers. A picture of one colour has no hash, which needs SciPy.
    file = BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    with open_image(file) as image:
        describe(to_luma(image))
    answers = os.fdopen(os.dup(1), "w")
    print(READY, file=answers, flush=True)
    # Decoders print what they think of a file; it must not get between the answers.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _Questions(sys.stdin, answers, DecodeLimits(int(sys.argv[1]), float(sys.argv[2]))).answer_all()


if __name__ == "__main__":
    main()
