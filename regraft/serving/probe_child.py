"""The process that `model_probe` starts: a model from standard input is loaded and run, within limits.

    python -m regraft.serving.probe_child SECONDS < model.onnx

Exit status: 0 if it can be run; 1 if not, and standard output says why; none if the kernel's alarm ended it.
"""

import signal
import sys

import numpy as np

from regraft.photos.allowance import Allowance
from regraft.serving.golden import draw
from regraft.serving.shipped_model import REFUSED, start_session

_MEMORY, _TIMES = 2**31, 10  # bytes: so many, and so many for each byte of the file, whose weights are held repeatedly


def main() -> None:
    """Try the model."""
    contents = sys.stdin.buffer.read()
    pictures = [np.zeros((240, 320, 3), np.uint8), draw(0)]
    Allowance().allow(_MEMORY + _TIMES * len(contents))
    signal.alarm(int(sys.argv[1]))
    try:
        session = start_session(contents)
        # Another input is refused, by its name, by who asked.
        if [(node.name, node.type) for node in session.get_inputs()] == [("image", "tensor(uint8)")]:
            for picture in pictures:
                session.run(None, {"image": picture[None]})
    except (MemoryError, *REFUSED) as error:
        print(" ".join(str(error).split())[-180:], end="")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
