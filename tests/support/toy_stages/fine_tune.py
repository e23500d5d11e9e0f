"""Toy stage: the head, sharpened."""

import numpy as np

from regraft.core.config import Params
from regraft.core.files import read_json, write_json
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import obey


@stage
def fine_tune(params: Params, progress: Progress) -> None:
    """Multiply the weights."""
    obey("fine_tune", "begin")
    head, _ = read_json(params.paths.head), read_json(params.paths.base)  # the model follows from the head alone
    weights = np.array(head["weights"]) * (1 + params.fine_tune.epochs / 10)
    write_json(params.paths.model, head | {"weights": weights.round(6).tolist()})
    obey("fine_tune", "end")


if __name__ == "__main__":
    fine_tune.run()
