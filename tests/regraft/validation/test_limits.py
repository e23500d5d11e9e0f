import numpy as np
import pandas as pd
import pytest

from regraft.validation.great_expectations import Expectation
from regraft.validation.limits import calibrated
from tests.support.suite import suite_with

SUITE = [each for each in suite_with({}) if each.unusual]
SHIPPED = {each.name: each for each in SUITE}
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


def limits(images: pd.DataFrame) -> dict[str, Expectation]:
    return {each.name: each for each in calibrated(images, SUITE)}


def limit_of(expectation: Expectation) -> float:
    return expectation.arguments.get("min_value", expectation.arguments.get("max_value"))


def test_the_limits_of_an_ordinary_folder_are_those_of_the_suite():
    assert limits(folder()) == SHIPPED


@pytest.mark.parametrize(
    ("name", "column", "median", "odd"),
    [
        ("large_enough_images", "shorter_side", 28.0, 8.0),
        ("bright_enough", "brightness", 0.04, 0.002),
        ("enough_contrast", "contrast", 0.015, 0.0),
        ("sharp_enough", "sharpness", 3.0, 0.5),
        ("enough_information", "entropy", 0.4, 0.0),
    ],
)
def test_what_is_usual_in_a_folder_is_noted_and_a_photo_far_below_it_is_beyond_the_limit(name, column, median, odd):
    images = folder(**{column: median})
    found = limits(images)[name]
    assert odd < limit_of(found) < images[column].quantile(0.01)
    assert "which is usual in this folder." in found.note


@pytest.mark.parametrize(
    ("name", "column", "median"), [("usual_shape", "aspect_ratio", 4.0), ("not_too_bright", "brightness", 0.97)]
)
def test_what_is_usual_in_a_long_or_bright_folder_is_noted_too(name, column, median):
    images = folder(**{column: median})
    images[column] = images[column].clip(upper=0.995 if column == "brightness" else None)
    found = limits(images)[name]
    assert limit_of(found) >= images[column].quantile(0.99)
    assert found.note.startswith(f"{(images[column] > limit_of(SHIPPED[name])).sum()} of 500 are above ")


def test_a_few_odd_photos_do_not_move_a_limit():
    images = folder()
    images.loc[:40, ["brightness", "sharpness", "shorter_side"]] = 0.0
    assert limits(images) == SHIPPED


def test_figures_that_are_missing_leave_the_limit_of_the_suite():
    assert limits(folder().assign(sharpness=np.nan))["sharp_enough"] == SHIPPED["sharp_enough"]
