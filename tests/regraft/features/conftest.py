"""What several tests of features share."""

from dataclasses import replace

import pytest

from regraft.backbones.catalogue import Backbone
from regraft.backbones.trunk import TensorFlowRunner, Trunk


@pytest.fixture(scope="session")
def batching(trunk: Trunk, backbone: Backbone) -> Trunk:
    """The same backbone where one thread makes all forward passes, as on a GPU."""
    return replace(trunk, runner=TensorFlowRunner(backbone))
