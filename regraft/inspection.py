"""Files are opened by processes of their own, so that no file, whatever it holds, can end a run or hold it up.

A decoder is C code: hostile bytes may crash it or keep it busy for hours, and no thread can be stopped. A process can,
and the kernel does it: before each file the process sets itself an alarm, which ends it.

    python -m regraft.inspection MAX_PIXELS MAX_SECONDS     a path per line in, facts per line out, all as JSON
"""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

from PIL import Image

from regraft.appearance import describe
from regraft.images import ImageFacts, inspect, load_rgb

_READY = "ready"


class Inspectors:
    """Processes that inspect files, as many as there are threads that ask; each is started when it is first needed."""

    def __init__(self, *, max_pixels: int, max_seconds: float) -> None:
        self._max_pixels, self._max_seconds = max_pixels, max_seconds
        self._free: deque[subprocess.Popen[str]] = deque()

    def __enter__(self) -> "Inspectors":
        return self

    def __exit__(self, *_: object) -> None:
        while self._free:
            process = self._free.pop()
            process.communicate()  # it ends when nothing more can come

    def inspect(self, path: Path) -> ImageFacts:
        """Do what `regraft.images.inspect` does, within the limits; safe to call from several threads.

        Raises:
            TimeoutError: it took longer than `max_seconds`.
            OSError: the machine failed, or the decoder crashed.
        """
        process = self._send(json.dumps(str(path.absolute())) + "\n")
        assert process.stdout
        answer = process.stdout.readline()
        if not answer:
            raise self._error(process)
        self._free.append(process)
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
                process.wait()
            else:
                return process

    def _start(self) -> "subprocess.Popen[str]":
        root = str(Path(__file__).parents[1])
        command = [sys.executable, "-m", __name__, str(self._max_pixels), str(self._max_seconds)]
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
            raise RuntimeError(f"`{' '.join(command)}` ended with status {process.wait()} before the first file")
        return process

    def _error(self, process: "subprocess.Popen[str]") -> OSError:
        status = process.wait()
        process.communicate()
        if status == -signal.SIGALRM:
            return TimeoutError(0, f"decoding takes longer than {self._max_seconds:g} s (validate_data.max_seconds)")
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return OSError(0, f"the decoder crashed on it ({how})")


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
