import importlib

import numpy as np
import pytest

from regraft.backbones.cut_points import preprocessed_input
from regraft.backbones.keras_backbones import FAMILIES, applications

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)


def built(mode: str):
    """A model that only preprocesses."""
    import keras

    image, preprocessed = preprocessed_input(16, mode)
    return keras.Model(image, keras.layers.Identity()(preprocessed))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_preprocessed_as_keras_does_it(family):
    theirs = importlib.import_module(f"keras.applications.{family}").preprocess_input
    # Theirs works in place, so it gets a copy. Differences are those of float32, divided in another order.
    assert np.asarray(built(FAMILIES[family].preprocessing)(IMAGES)) == pytest.approx(
        theirs(IMAGES.copy()), rel=1e-6, abs=1e-6
    )


def test_lite_mode_is_what_those_weights_were_trained_with():
    pixels = np.array([0, 127, 255], np.float32) * np.ones((1, 16, 16, 1), np.float32)
    assert np.asarray(built("lite")(pixels))[0, 0, 0] == pytest.approx([-127 / 128, 0, 1])


def test_every_classification_model_of_keras_has_a_known_family():
    import keras

    constructors = {name for name, value in vars(keras.applications).items() if callable(value)}
    assert len(constructors) > 30
    assert set(applications()) == constructors
