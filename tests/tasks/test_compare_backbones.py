import pytest

from tasks.compare_backbones import compare
from tests.support.small_project import quiet


def test_a_second_comparison_costs_no_forward_pass(project, small_params):
    first, second = (compare("efficientnet_lite0=null", small_params, quiet) for _ in range(2))
    assert (first.computed > 0, second.computed) == (True, 0)
    assert first.right is not None
    assert second.right is not None
    assert first.right.tolist() == second.right.tolist()
    assert first.nearest_neighbours == second.nearest_neighbours
    assert first.problem == ""
    assert first.feature_dim == 1280
    assert first.milliseconds is not None
    assert first.milliseconds > 0


@pytest.mark.parametrize(
    ("name", "problem"),
    [("resnet9000", "resnet9000"), ("efficientnet_lite0=missing.pth", "missing.pth does not exist")],
)
def test_a_backbone_that_cannot_be_loaded_says_why_and_stops_nothing(project, small_params, name, problem):
    compared = compare(name, small_params, quiet)
    assert problem in compared.problem
    assert compared.right is None
