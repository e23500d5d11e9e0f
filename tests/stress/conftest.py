"""One undisturbed run of `cache_features` on the small photos: what every disturbed run is compared with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.backbones.trunk import Trunk
from regraft.photos.dataset import Dataset
from tests.stress.kills import Reference, undisturbed
from tests.stress.stage_processes import Project, project_maker

# The backbone of the fixture `trunk`, whose graph need not be converted again.
SETTINGS = ["image_size=64", "cut=block13_add", "engine=onnxruntime"]


@pytest.fixture(scope="session")
def make(raw: Path, dataset: Dataset) -> Callable[..., Project]:
    """A function that makes a project of the small photos."""
    return project_maker(raw, dataset, ["cache_features.views=1", *(f"backbone.{setting}" for setting in SETTINGS)])


@pytest.fixture(scope="session")
def undisturbed_run(
    make: Callable[..., Project], trunk: Trunk, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, Reference]:
    """A project in which the stage has run, and what came out. Do not change it."""
    return undisturbed(make, tmp_path_factory.mktemp("undisturbed"), trunk.path.parent)
