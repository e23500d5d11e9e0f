"""What a file promises of novelty holds on average over the photos that its threshold was found on."""

import json

import numpy as np
import onnx
import pytest

from regraft.core.errors import RegraftError
from regraft.export.finishing import novel_from
from regraft.serving.shipped_model import ShippedModel
from regraft.serving.thresholds import one_in, share_of


@pytest.mark.parametrize("photos", [1, 20, 50, 98, 99, 150, 198, 199, 1000])
@pytest.mark.parametrize("draw", ["uniform", "lognormal"])
def test_ordinary_photos_are_called_novel_no_more_often_than_the_file_says(photos, draw):
    """A threshold has a true share of alarms, of which the mean is k / (n + 1): four standard errors are allowed."""
    random, draws, others = np.random.default_rng(photos), 3000, 4000
    shares = np.empty(draws)
    ordinary = np.sort(getattr(random, draw)(size=others * 100))
    for place in range(draws):
        above = novel_from(getattr(random, draw)(size=photos))
        shares[place] = 1 - np.searchsorted(ordinary, above, side="right") / len(ordinary)
    stated, error = share_of(photos), shares.std() / np.sqrt(draws)
    assert abs(shares.mean() - stated) < 4 * error + 1e-4  # and no more cautious than it has to be
    assert stated <= max(0.01, 1 / (photos + 1))


def test_equal_novelties_only_make_alarms_fewer():
    assert novel_from(np.array([0.2, 0.5, 0.5, 0.5])) == 0.5


@pytest.mark.parametrize(("photos", "words"), [(20, "1 in 21"), (98, "1 in 99"), (150, "1 in 151"), (1000, "1 in 100")])
def test_a_share_in_words_is_never_less_than_it_is(photos, words):
    assert one_in(share_of(photos)) == words


@pytest.mark.parametrize("facts", [{"novelty_share": "-1"}, {"novelty_share": "0"}, {"novelty_photos": "1e300"}])
def test_a_file_that_says_an_impossible_share_is_none_of_ours(colour_model, tmp_path, facts):
    model = colour_model(["red", "green", "blue"])
    onnx.helper.set_model_props(model, {"class_names": json.dumps(["a", "b", "c"]), **facts})
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RegraftError, match="must be a number from"):
        ShippedModel(tmp_path / "model.onnx")
