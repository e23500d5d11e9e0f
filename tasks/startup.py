"""What a process says while it starts: lines of libraries that a person can do nothing about are left out.

Errors and all other lines come through, those of a process that dies while it imports TensorFlow too.
"""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# Written by TensorFlow's shared library while it is loaded, before it reads TF_CPP_MIN_LOG_LEVEL. The advice in it,
# TF_ENABLE_ONEDNN_OPTS=0, would change results.
_UNWANTED = [
    "All log messages before absl::InitializeLog() is called are written to STDERR",
    "oneDNN custom operations are on",
]


def quieten_libraries() -> None:
    """Leave out what TensorFlow and Keras say of themselves; to be called before either is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a page about the processor otherwise
    # Keras asks whether NumPy still has this name, which is what NumPy warns of.
    warnings.filterwarnings("ignore", r"In the future `np\.object`", FutureWarning, r"keras\.src\.export\.tf2onnx_lib")
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _TensorFlow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TensorFlow())


class _TensorFlow(MetaPathFinder):
    """Finds `tensorflow` as Python would, and has it imported without the unwanted lines."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Quiet(spec.loader)
        return spec


class _Quiet(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _without_unwanted_lines():
            self._loader.exec_module(module)


@contextmanager
def _without_unwanted_lines() -> Iterator[None]:
    """Let stderr go through grep, a process of its own: what is written just before a crash is not lost either."""
    patterns = [argument for line in _UNWANTED for argument in ("-e", line)]
    sys.stderr.flush()
    screen = os.dup(2)
    try:
        command = ["grep", "-vF", *patterns]
        grep = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=screen)
    except OSError:  # there is no grep, or no room for one more process
        os.close(screen)
        yield
        return
    assert grep.stdin is not None
    os.dup2(grep.stdin.fileno(), 2)
    grep.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(screen, 2)
        os.close(screen)
        # It ends when nobody can write to it any more; a process that was started meanwhile still may.
        with suppress(subprocess.TimeoutExpired):
            grep.wait(timeout=1)
