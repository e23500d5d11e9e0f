"""What several tests of the library share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from regraft.backbones.trunk import Trunk
from regraft.photos.images import load_rgb
from regraft.photos.preparation import Preparation


@pytest.fixture(scope="session")
def features_of(trunk: Trunk, preparation: Preparation) -> Callable[..., np.ndarray]:
    """A function that returns the features of image files, after a change of their pictures."""

    def features(paths: list[Path], change=lambda photo: photo) -> np.ndarray:
        prepared = [preparation(np.asarray(change(Image.fromarray(load_rgb(path))))) for path in paths]
        return trunk.run(np.stack(prepared), with_activations=False)[0]

    return features


@pytest.fixture(scope="session")
def s3_server() -> Iterator[None]:
    """A server that speaks S3, with an empty bucket; the environment names it as it names a real one."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        yield
    server.stop()
