"""Floors: what every model must reach on test, whatever is in production; section `promote.floors` of params.yaml."""

from pathlib import Path

import numpy as np

from regraft.core.setting_types import Floors


def below_floors(
    floors: Floors,
    labels: np.ndarray,
    predicted: np.ndarray,
    *,
    milliseconds: float | None,
    model: Path,
    weights: np.ndarray | None = None,
) -> list[str]:
    """Return as sentences what a model does not reach.

    Args:
        floors: null is no floor.
        labels: names of the true classes of the test photos, shape (n,).
        predicted: names of the classes that the model gave them.
        milliseconds: median time for one photo, on one core; None if it was not measured.
        model: the file.
        weights: what each photo counts for in accuracy, where classes are more or less frequent in use.
    """
    said = []
    right = predicted == labels
    accuracy = float(np.average(right, weights=weights)) if len(labels) else 0.0
    if floors.accuracy is not None and accuracy < floors.accuracy:
        said.append(
            f"its accuracy on {len(labels)} test photos is {accuracy:.4f}, below promote.floors.accuracy, "
            f"{floors.accuracy:g}"
        )
    if floors.recall is not None:
        for name in np.unique(labels):
            recall, images = float(right[labels == name].mean()), int((labels == name).sum())
            if recall < floors.recall:
                said.append(
                    f"recall of '{name}' on its {images} test photos is {recall:.3f}, below "
                    f"promote.floors.recall, {floors.recall:g}"
                )
    if floors.milliseconds is not None and milliseconds is not None and milliseconds > floors.milliseconds:
        said.append(
            f"it takes {milliseconds:.1f} ms for a photo on one core, above promote.floors.milliseconds, "
            f"{floors.milliseconds:g}"
        )
    megabytes = model.stat().st_size / 1e6
    if floors.megabytes is not None and megabytes > floors.megabytes:
        said.append(f"{model} has {megabytes:.1f} MB, above promote.floors.megabytes, {floors.megabytes:g}")
    return said
