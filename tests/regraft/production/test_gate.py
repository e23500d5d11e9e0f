from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.photos.dataset import Dataset
from regraft.production.gate import accuracy_of, judge


def test_the_first_model_is_accepted():
    verdict = judge(0.2, None, images=10, margin=0)
    assert (verdict.is_accepted, verdict.champion_accuracy) == (True, None)


@pytest.mark.parametrize(
    ("challenger", "champion", "margin", "expected"),
    [
        (0.95, 0.90, 0.0, True),
        (0.90, 0.90, 0.0, True),
        (0.89, 0.90, 0.0, False),
        (0.89, 0.90, 0.02, True),
        (0.87, 0.90, 0.02, False),
        # Exactly the margin; in floating point 0.86 - 0.87 is below -0.01 by a hair.
        (0.86, 0.87, 0.01, True),
        (217 / 250, 222 / 250, 0.02, True),
        (216 / 250, 222 / 250, 0.02, False),
    ],
)
def test_a_loss_of_up_to_the_margin_is_accepted(challenger, champion, margin, expected):
    assert judge(challenger, champion, images=250, margin=margin).is_accepted is expected


def test_a_refusal_says_both_figures_the_margin_and_what_happens():
    assert judge(0.78, 0.91, images=120, margin=0.01).words == (
        "Refused: accuracy 0.7800 on 120 test photos, against 0.9100 in production (-0.1300; margin 0.01). "
        "The model in production stays."
    )


def test_an_acceptance_says_both_figures():
    assert judge(0.93, 0.91, images=120, margin=0.01).words == (
        "Accepted: accuracy 0.9300 on 120 test photos, against 0.9100 in production (+0.0200; margin 0.01)."
    )


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (["blue", "green", "red"], 0.75),
        (["red", "blue", "green"], 0.25),  # the same outputs in another order name other classes
        (["blue", "green", "violet"], 0.5),  # a class that the model does not know cannot be named
    ],
)
def test_accuracy_compares_names_and_not_numbers(colour_classifier, known, expected):
    test = Dataset(pd.DataFrame({"class_name": ["blue", "green", "red", "red"]}), ["blue", "green", "red"], Path())
    assert accuracy_of(colour_classifier(known), test, np.eye(3)[[0, 1, 2, 0]]) == expected
