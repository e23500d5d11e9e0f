"""What several tests of training share."""

from pathlib import Path

import numpy as np
import pytest

from regraft.training.network_file import Head, HeadSettings, build_head, start_keras, write_head
from tests.support.in_keras import compile_classifier


@pytest.fixture(scope="session")
def head(features, tmp_path_factory) -> Path:
    """The file of a head that was hardly trained, so that there is something left to learn."""
    path = tmp_path_factory.mktemp("head") / "head.npz"
    start_keras(0)
    settings = HeadSettings(0, "relu", "adamw", 0.2, 0.0003, 0.001, 0.05)
    head = build_head(features.dim, 3, settings)
    compile_classifier(head, learning_rate=0.0003, weight_decay=0.001, label_smoothing=0.05)
    values, class_indices = features.of("train")
    head.fit(values, np.eye(3)[class_indices], batch_size=8, epochs=1, verbose=0)
    write_head(path, Head(settings, head.get_weights()))
    return path
