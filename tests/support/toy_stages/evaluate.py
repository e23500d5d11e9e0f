"""Toy stage: the shipped file over the test photos, with the store."""

import numpy as np

from regraft.core.config import Params
from regraft.core.files import write_json
from regraft.export.classifier import OnnxClassifier, open_said, probabilities_of
from regraft.photos.dataset import read_dataset
from regraft.photos.images import Threads
from regraft.store.leases import store_in_use
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import obey


@stage
def evaluate(params: Params, progress: Progress) -> None:
    """Write the accuracy."""
    obey("evaluate", "begin")
    paths = params.paths
    classifier, test = OnnxClassifier(paths.onnx), read_dataset(paths.dataset, paths.raw).of("test")
    with store_in_use(paths.store, None):
        stored = open_said(paths.store, classifier)
        probabilities = probabilities_of(classifier, test, Threads(1, progress("photos")), stored=stored)
    is_right = np.array(classifier.class_names)[probabilities.argmax(axis=1)] == test.rows.class_name.to_numpy()
    write_json(
        paths.reports / "metrics.json", {"accuracy": float(is_right.mean()), "target": params.evaluate.target_precision}
    )
    obey("evaluate", "end")


if __name__ == "__main__":
    evaluate.run()
