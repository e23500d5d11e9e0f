"""One file has all settings: a wrong one is told before anything is computed, and a backbone is one name in it."""

from collections.abc import Callable

import pytest

from tests.promises.user import REGRAFT, Project, outcomes_of

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def project(projects: Callable[..., Project]) -> Project:
    """A project without photos."""
    return projects()


def test_every_network_of_keras_applications_is_a_backbone_by_its_name(project: Project) -> None:
    said = project.succeed(*REGRAFT, "backbones").output.split()
    assert {"efficientnet_lite0", "ConvNeXtTiny", "EfficientNetV2B0", "MobileNetV2", "ResNet50", "VGG16"} <= set(said)


def test_without_photos_a_run_says_where_to_put_them(project: Project) -> None:
    ran = project.regraft("retrain")
    assert (ran.status, "data/raw" in ran.output) == (1, True), ran.output


def test_a_misspelt_setting_is_named_before_anything_is_computed(project: Project) -> None:
    project.write("params.yaml", project.read("params.yaml").replace("epochs:", "epoch:"))
    ran = project.regraft("retrain")
    assert (ran.status, "epoch" in ran.output) == (1, True), ran.output
    assert outcomes_of(ran.output) == {}
