"""What `auto` stands for in params.yaml."""

import pytest
from ruamel.yaml import YAML

from regraft.core.config import BUDGETS
from regraft.core.params_file import load_params
from tests.support.pipeline import ROOT


@pytest.fixture
def loaded(tmp_path):
    """A function that loads this project's params.yaml with some settings changed."""

    def load(**settings):
        contents = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
        for name, value in settings.items():
            section, key = name.split("__")
            contents[section][key] = value
        YAML(typ="safe").dump(contents, tmp_path / "params.yaml")
        return load_params(tmp_path / "params.yaml")

    return load


@pytest.mark.parametrize("budget", BUDGETS)
def test_auto_is_what_the_budget_buys(loaded, budget):
    params = loaded(fine_tune__budget=budget)
    tuning = params.fine_tune
    assert {"views": params.cache_features.views, "layers": tuning.layers, "epochs": tuning.epochs} == BUDGETS[budget]


def test_what_is_given_counts_and_not_the_budget(loaded):
    params = loaded(fine_tune__budget="quick", fine_tune__epochs=7, cache_features__views=1, fine_tune__layers="all")
    assert (params.fine_tune.epochs, params.cache_features.views, params.fine_tune.layers) == (7, 1, "all")


def test_without_fine_tuning_no_views_are_cached_unless_they_are_asked_for(loaded):
    assert loaded(fine_tune__mode="off").cache_features.views == 0
    assert loaded(fine_tune__mode="off", cache_features__views=2).cache_features.views == 2
