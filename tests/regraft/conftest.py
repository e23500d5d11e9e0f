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
def photo_features(real_data: Path, trunk: Trunk, preparation: Preparation) -> Callable[..., np.ndarray]:
    """A function that returns the features of 300 real photos, all or some, after a change."""
    paths = sorted((real_data / "clothing10" / "train").rglob("*.jpg"))
    chosen = [paths[index] for index in np.random.default_rng(0).permutation(len(paths))[:300]]
    photos = [Image.fromarray(load_rgb(path)) for path in chosen]

    def features(change=lambda photo: photo, some=slice(None)) -> np.ndarray:
        prepared = [preparation(np.asarray(change(photo))) for photo in photos[some]]
        return trunk.run(np.stack(prepared), with_activations=False)[0]

    return features
