"""Fixtures that several test files share: small photos with real variety, and what is slow to build, built once."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from regraft.backbones.catalogue import Backbone, choose_backbone
from regraft.backbones.trunk import Trunk, load_trunk
from regraft.export.classifier import OnnxClassifier
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import FeatureStore
from regraft.features.table import Features, read_features, write_features
from regraft.photos.dataset import Dataset
from regraft.photos.preparation import Preparation
from regraft.photos.views import Augmentation, Views
from tests.support.library import SMALL_CHOICE, dataset_of, extractor_of, ignore_progress
from tests.support.photos import REAL_PHOTOS

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: commands that tests stop inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow prints a page about itself otherwise

CLASS_COLOURS = {"apple": (200, 60, 60), "green pear": (70, 170, 60), "piña": (210, 180, 50)}
PHOTOS_PER_SPLIT = {"train": 6, "val": 3, "test": 3}  # of each class
SIZES = [(96, 80), (80, 96), (151, 67), (73, 73), (203, 131), (41, 77)]  # width, height

Photo = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_photos() -> list[Path]:
    """The real photos of tests/data, in an order that mixes their classes. Do not change them."""
    paths = sorted(REAL_PHOTOS.rglob("*.jpg"))
    return [paths[index] for index in np.random.default_rng(0).permutation(len(paths))]


@pytest.fixture(scope="session")
def photo() -> Photo:
    """A function that makes a photo: smooth, with edges as soft and colours as mixed as those of a camera."""

    def make(seed: int, width: int, height: int, colour: tuple[int, int, int] = (128, 128, 128)) -> np.ndarray:
        coarse = np.random.default_rng(seed).normal(colour, 45, (7, 7, 3)).clip(0, 255).astype(np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture(scope="session")
def raw(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of JPEG and PNG photos in three classes that differ by colour, splits given. Do not change it."""
    folder, seed = tmp_path_factory.mktemp("data") / "raw", 0
    for split, count in PHOTOS_PER_SPLIT.items():
        for class_name, colour in CLASS_COLOURS.items():
            (folder / split / class_name).mkdir(parents=True)
            for _ in range(count):
                suffix = "jpg" if seed % 3 else "png"
                pixels = photo(seed, *SIZES[seed % len(SIZES)], colour)
                Image.fromarray(pixels).save(folder / split / class_name / f"{seed:03}.{suffix}")
                seed += 1
    return folder


@pytest.fixture(scope="session")
def dataset(raw: Path) -> Dataset:
    """The data set of `raw`."""
    return dataset_of(raw)


@pytest.fixture(scope="session")
def preparation() -> Preparation:
    """What makes of a photo what `trunk` is given."""
    return Preparation(image_size=64, crop_fraction=0.875)


@pytest.fixture(scope="session")
def views(preparation: Preparation) -> Views:
    """The centre square of every photo, and one augmented view of every training photo."""
    return Views(preparation, Augmentation(0.35, 1.33, True, 0.2, 0.2, 0.2), count=1, fast_decoding=False)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The backbone of `SMALL_CHOICE`."""
    return choose_backbone(SMALL_CHOICE)


@pytest.fixture(scope="session")
def for_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of pytest share; lock what you write there."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def trunk(backbone: Backbone, for_all_workers: Path) -> Trunk:
    """The frozen small backbone; converting it takes seconds."""
    with FileLock(for_all_workers / "graphs.lock"):
        return load_trunk(backbone, for_all_workers / "graphs")


@pytest.fixture(scope="session")
def extractor(dataset: Dataset, views: Views, trunk: Trunk, tmp_path_factory: pytest.TempPathFactory) -> Extractor:
    """An extractor whose store holds features and activations of all views. Do not change it."""
    extractor = extractor_of(views, trunk, tmp_path_factory.mktemp("store"))
    extractor.fill_store(dataset, activations="verified", on_progress=ignore_progress)
    return extractor


@pytest.fixture(scope="session")
def store(extractor: Extractor) -> FeatureStore:
    """Its store. Do not change it."""
    return extractor.store


@pytest.fixture(scope="session")
def features(dataset: Dataset, extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> Features:
    """The pooled features of all views."""
    path = tmp_path_factory.mktemp("features") / "features.arrow"
    write_features(path, extractor, dataset)
    return read_features(path)


@pytest.fixture(scope="session")
def colour_model() -> Callable[[list[str]], onnx.ModelProto]:
    """A function that makes a classifier of three classes: softmax of a photo's mean red, green and blue, 0 to 1."""

    def make(class_names: list[str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
                helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
                helper.make_node("Div", ["mean", "full"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["probabilities"]),
            ],
            "colour",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
            [
                numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
                numpy_helper.from_array(np.array([255], np.float32), "full"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        helper.set_model_props(model, {"class_names": json.dumps(class_names)})
        return model

    return make


@pytest.fixture
def colour_classifier(
    colour_model: Callable[[list[str]], onnx.ModelProto], tmp_path: Path
) -> Callable[[list[str]], OnnxClassifier]:
    """A function that loads that model from a file."""

    def load(class_names: list[str]) -> OnnxClassifier:
        onnx.save(colour_model(class_names), tmp_path / "colour.onnx")
        return OnnxClassifier(tmp_path / "colour.onnx")

    return load
