"""What several tests of features share."""

from dataclasses import replace

import pytest

from regraft.backbones.catalogue import Backbone
from regraft.backbones.runners import TensorFlowRunner
from regraft.backbones.trunk import Trunk


@pytest.fixture(scope="session")
def batching(trunk: Trunk, backbone: Backbone) -> Trunk:
    """The same backbone where one thread makes all forward passes, as on a GPU."""
    return replace(trunk, runner=TensorFlowRunner(backbone))
