from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.core.params_file import load_params
from regraft.validation.limits import calibrate

SETTINGS = load_params(Path(__file__).parents[3] / "params.yaml").validate_data
ORDINARY = {
    "shorter_side": 400.0,
    "aspect_ratio": 1.33,
    "brightness": 0.5,
    "contrast": 0.2,
    "sharpness": 300.0,
    "entropy": 7.0,
}


def folder(count: int = 500, **medians: float) -> pd.DataFrame:
    """The table of images: every figure spreads by a tenth around its median."""
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {name: median * np.exp(random.normal(0, 0.1, count)) for name, median in (ORDINARY | medians).items()}
    )


def test_the_limits_of_an_ordinary_folder_are_those_of_params():
    limits = calibrate(folder(), SETTINGS)
    assert limits["large_enough_images"].value == SETTINGS.large_enough_images.min
    assert limits["usual_shape"].value == SETTINGS.usual_shape.max
    assert {limit.note for limit in limits.values()} == {""}


@pytest.mark.parametrize(
    ("rule", "column", "median", "odd"),
    [
        ("large_enough_images", "shorter_side", 28.0, 8.0),
        ("bright_enough", "brightness", 0.04, 0.002),
        ("enough_contrast", "contrast", 0.015, 0.0),
        ("sharp_enough", "sharpness", 3.0, 0.5),
        ("enough_information", "entropy", 0.4, 0.0),
    ],
)
def test_what_is_usual_in_a_folder_is_noted_and_a_photo_far_below_it_is_beyond_the_limit(rule, column, median, odd):
    images = folder(**{column: median})
    limit = calibrate(images, SETTINGS)[rule]
    assert odd < limit.value < images[column].quantile(0.01)
    assert "which is usual in this folder." in limit.note


@pytest.mark.parametrize(
    ("rule", "column", "median", "odd"),
    [("usual_shape", "aspect_ratio", 4.0, 20.0), ("not_too_bright", "brightness", 0.97, 1.0)],
)
def test_what_is_usual_in_a_long_or_bright_folder_is_noted_too(rule, column, median, odd):
    images = folder(**{column: median})
    images[column] = images[column].clip(upper=0.995 if column == "brightness" else None)
    limit = calibrate(images, SETTINGS)[rule]
    assert limit.value >= images[column].quantile(0.99)
    assert limit.note.startswith(f"{(images[column] > getattr(SETTINGS, rule).max).sum()} of 500 are above ")


def test_in_a_folder_of_one_size_a_slightly_smaller_photo_is_usual_and_a_tiny_one_is_not():
    images = folder().assign(shorter_side=28.0)
    assert 20 < calibrate(images, SETTINGS)["large_enough_images"].value < 27


def test_a_few_odd_photos_do_not_move_a_limit():
    images = folder()
    images.loc[:40, ["brightness", "sharpness", "shorter_side"]] = 0.0
    limits = calibrate(images, SETTINGS)
    assert limits["bright_enough"].value == SETTINGS.bright_enough.min
    assert limits["sharp_enough"].value == SETTINGS.sharp_enough.min
    assert limits["large_enough_images"].value == SETTINGS.large_enough_images.min


def test_figures_that_nobody_measured_have_no_limit_of_their_own():
    assert calibrate(folder().assign(sharpness=np.nan), SETTINGS).keys() == calibrate(folder(), SETTINGS).keys() - {
        "sharp_enough"
    }
