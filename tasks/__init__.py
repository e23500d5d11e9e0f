"""The stages of dvc.yaml, one module each, and the seam that runs them."""

import os
import sys
from types import TracebackType

# Else ONNX Runtime, from 1.29 on, tells its maker of every model that it loads. Read when it is loaded itself.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def _say_stopped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one line, and no traceback, for Ctrl-C; a library that is being imported makes an ImportError of it."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, KeyboardInterrupt):
            print("\nStopped. Run again to go on.", file=sys.stderr, flush=True)
            os._exit(130)
        cause = cause.__cause__ or cause.__context__
    sys.__excepthook__(kind, error, trace)


# `python -m tasks.<stage>`, which imports for a second or two before the stage itself listens to signals.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _say_stopped
