"""A model from anywhere, loaded and run by a process of its own before this one does it.

ONNX Runtime computes what is constant in a graph while it loads it, takes as much time and memory as that needs, and
reads weights from other files. From within none of that can be stopped: `RunOptions.terminate` ends a run between two
operators, also in a Loop, and the cancellation flag of a session does not end its folding of constants (version 1.32).
A process can be: it has a limit on its memory and an alarm of the kernel, and stands in an empty folder, from which no
path leads to another file.
"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 30  # to load a model and to run it twice
_CHILD = "regraft.serving.probe_child"
_sound: set[str] = set()  # SHA-256 of the models that this process need not try again


def probe(contents: bytes) -> None:
    """Load and run a model in a process of its own.

    Raises:
        ValueError: it cannot be loaded or run, needs another file, or takes too long or too much memory.
    """
    digest = hashlib.sha256(contents).hexdigest()
    if digest in _sound:
        return
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])}
    command = [sys.executable, "-m", _CHILD, str(SECONDS)]
    # A file without a name, since Python would write to a pipe in pieces of 512 bytes.
    with tempfile.TemporaryDirectory(prefix="regraft-") as empty, tempfile.TemporaryFile() as model:
        model.write(contents)
        model.seek(0)
        ended = subprocess.run(command, stdin=model, capture_output=True, cwd=empty, env=environment, check=False)
    if ended.returncode:
        raise ValueError(_reason(ended))
    _sound.add(digest)


def _reason(ended: "subprocess.CompletedProcess[bytes]") -> str:
    if ended.returncode == -signal.SIGALRM:
        return f"to load it and to answer one picture takes longer than {SECONDS} s"
    if ended.returncode < 0:
        return f"ONNX Runtime crashed on it ({signal.Signals(-ended.returncode).name})"
    return ended.stdout.decode(errors="replace") or f"trying it ended with status {ended.returncode}"
