"""Frozen features from image files: Regraft's pipeline against Keras' own, with the same backbone, in the same run.

    python -m benchmarks.speed.extraction DIR [--quick]

Baseline: `keras.Model.predict` over `keras.utils.image_dataset_from_directory` (tf.data, parallel, prefetched).
Limit: what decoding and inference could give if both kept all cores busy and nothing else cost anything:
1 / (1 / decode rate + 1 / inference rate), decoding measured on all cores alone and inference on a batch in memory.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.photos import read_folder
from benchmarks.support.projects import describe_machine
from regraft.backbones.catalogue import Backbone, choose_backbone
from regraft.backbones.trunk import Trunk, load_trunk
from regraft.core.config import Params
from regraft.core.params_file import load_params
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import open_feature_store
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.images import Threads
from regraft.photos.views import Views, choose_views

ROOT = Path(__file__).parents[2]


def measure(raw: Path, *, images: int, repeats: int) -> dict[str, float]:
    """Return images per second of Regraft, of Keras, and of the limit: medians of `repeats` interleaved runs."""
    params = load_params(ROOT / "params.yaml")
    backbone = choose_backbone(params.backbone)
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=0)
    dataset = read_folder(raw).head(images)
    rates: dict[str, list[float]] = {"regraft": [], "keras": [], "decode": [], "inference": []}
    with tempfile.TemporaryDirectory(prefix="regraft-extraction-") as temporary:
        trunk = load_trunk(backbone, Path(temporary))
        pixels = [_draw(dataset, views, photo) for photo in dataset.head(64).photos()]
        keras_side = _keras_side(backbone, dataset, Path(temporary, "keras"))
        for repeat in range(repeats + 1):
            store = Path(temporary, f"store{repeat}")
            measured = {
                "regraft": _rate(len(dataset), partial(_regraft, dataset, views, trunk, store, params)),
                "keras": _rate(len(dataset), keras_side),
                "decode": _rate(len(dataset), lambda: _exhaust(partial(_draw, dataset, views), dataset.photos())),
                "inference": _rate(
                    4 * len(pixels), lambda: _exhaust(partial(trunk.run, with_activations=False), pixels * 4)
                ),
            }
            for name, rate in measured.items() if repeat else ():  # the first round warms up
                rates[name].append(rate)
    median = {name: statistics.median(values) for name, values in rates.items()}
    limit = 1 / (1 / median["decode"] + 1 / median["inference"])
    return {
        "images": len(dataset),
        "regraft_images_per_second": round(median["regraft"], 1),
        "keras_images_per_second": round(median["keras"], 1),
        "decode_images_per_second": round(median["decode"], 1),
        "inference_images_per_second": round(median["inference"], 1),
        "limit_images_per_second": round(limit, 1),
        "ratio_to_keras": round(median["regraft"] / median["keras"], 2),
        "ratio_to_limit": round(median["regraft"] / limit, 2),
    }


def _rate(images: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return images / (time.perf_counter() - start)


def _regraft(dataset: Dataset, views: Views, trunk: Trunk, folder: Path, params: Params) -> None:
    extractor = Extractor(views, trunk, open_feature_store(folder, trunk), params.machine)
    extractor.fill_store(dataset, activations="none", on_progress=lambda done, total: None)


def _draw(dataset: Dataset, views: Views, photo: Photo) -> np.ndarray:
    return views.draw(dataset.read_photo(photo), photo.digest, [0])


def _exhaust(function: Callable[[Any], object], items: list[Any]) -> None:
    """Call a function on every item, on all cores, and drop the results."""
    for _ in Threads(0).map(function, items):
        pass


def _keras_side(backbone: Backbone, dataset: Dataset, links: Path) -> Callable[[], object]:
    """The same files through Keras: links to them in a folder of their own, so that Keras sees just these."""
    import keras

    folder = links / "all"
    folder.mkdir(parents=True)
    for number, path in enumerate(dataset.rows.path):
        source = (dataset.folder / path).resolve()
        # Keras goes by the suffix; its decoder goes by the content.
        (folder / f"{number}{source.suffix.lower() or '.jpg'}").symlink_to(source)
    images = keras.utils.image_dataset_from_directory(
        links,
        labels=None,
        image_size=(backbone.image_size, backbone.image_size),
        batch_size=32,
        shuffle=False,
        crop_to_aspect_ratio=True,
        verbose=False,
    ).prefetch(2)
    model = backbone.build()
    return lambda: model.predict(images, verbose=0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Frozen features from image files, against Keras.")
    parser.add_argument("photos", type=Path, help="a folder of labelled photos")
    parser.add_argument("--quick", action="store_true", help="256 images instead of 1,024, two repeats instead of five")
    arguments = parser.parse_args()
    images, repeats = (256, 2) if arguments.quick else (1024, 5)
    result = measure(arguments.photos, images=images, repeats=repeats)
    print(describe_machine())
    print(
        f"Regraft {result['regraft_images_per_second']} images/s, Keras {result['keras_images_per_second']} images/s: "
        f"{result['ratio_to_keras']}x; {result['ratio_to_limit']:.0%} of the limit on these cores"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
