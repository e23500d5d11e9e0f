"""What several tests of the library share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.backbones.trunk import Trunk
from regraft.photos.images import load_rgb
from regraft.photos.preparation import Preparation


@pytest.fixture(scope="session")
def features_of(trunk: Trunk, preparation: Preparation) -> Callable[..., np.ndarray]:
    """A function that returns the features of image files, after a change of their pictures."""

    def features(paths: list[Path], change=lambda photo: photo) -> np.ndarray:
        prepared = [preparation(np.asarray(change(Image.fromarray(load_rgb(path))))) for path in paths]
        return trunk.run(np.stack(prepared), with_activations=False)[0]

    return features
