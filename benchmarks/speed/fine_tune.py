"""An epoch of fine-tuning: from cached activations with Regraft's step, against Keras' `fit` from image files.

    python -m benchmarks.speed.fine_tune DIR [--quick]

Both train the same layers of the same network on the same photos with AdamW, in the same process, by turns; medians of
epochs, without validation. Baseline: `keras.Model.fit` over `keras.utils.image_dataset_from_directory` (tf.data,
parallel, prefetched), the layers up to the cut frozen, BatchNorm too. What the cache cost, once, is given beside it.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.support.photos import read_folder
from benchmarks.support.projects import describe_machine
from regraft.backbones.catalogue import Backbone, choose_backbone
from regraft.backbones.trunk import load_trunk
from regraft.core.config import Params
from regraft.core.params_file import load_params
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import open_feature_store
from regraft.photos.dataset import Dataset
from regraft.photos.views import choose_views
from regraft.training.fine_tune import start_trainer
from regraft.training.keras_network import choose_layers, join
from regraft.training.network_file import HeadSettings, build_head, start_keras
from regraft.training.trainer import WEIGHT_DECAY, Images
from regraft.training.training_loop import (
    BATCH_SIZE,
    LABEL_SMOOTHING,
    Checkpoint,
    Plan,
    Training,
    TrainingImages,
    cached_activations,
)

if TYPE_CHECKING:
    import keras

ROOT = Path(__file__).parents[2]
_DROPOUT = 0.2


def measure(raw: Path, *, images: int, repeats: int) -> dict[str, Any]:
    """Return the seconds of an epoch of both, medians of `repeats`."""
    params = load_params(ROOT / "params.yaml")
    start_keras(params.seed)
    backbone = choose_backbone(params.backbone)
    dataset = _training_photos(raw, images)
    with tempfile.TemporaryDirectory(prefix="regraft-fine-tune-") as temporary:
        folder = Path(temporary)
        cached, cache_seconds = _from_cache(dataset, backbone, params, folder)
        fit, photos = _from_images(dataset, backbone, params, folder / "photos")
        seconds: dict[str, list[float]] = {"cached": [], "cached_cpu": [], "images": [], "images_cpu": []}
        for epoch in range(1, repeats + 2):
            start, start_cpu = time.perf_counter(), time.process_time()
            cached.train_epoch(epoch)
            middle, middle_cpu = time.perf_counter(), time.process_time()
            fit.fit(photos, epochs=1, verbose=0)
            if epoch > 1:  # the first one warms up
                seconds["cached"].append(middle - start)
                seconds["cached_cpu"].append(middle_cpu - start_cpu)
                seconds["images"].append(time.perf_counter() - middle)
                seconds["images_cpu"].append(time.process_time() - middle_cpu)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "images": len(dataset),
        "cut": backbone.cut,
        "cached_seconds_per_epoch": round(medians["cached"], 2),
        "images_seconds_per_epoch": round(medians["images"], 2),
        "speedup": round(medians["images"] / medians["cached"], 2),
        "cached_cpu_seconds_per_epoch": round(medians["cached_cpu"], 2),
        "images_cpu_seconds_per_epoch": round(medians["images_cpu"], 2),
        "cache_seconds_once": round(cache_seconds, 1),
    }


def _training_photos(raw: Path, count: int) -> Dataset:
    """So many photos of a folder, all of them to train on."""
    dataset = read_folder(raw)
    return dataset.with_rows(dataset.rows.assign(split="train")).head(count)


def _network(backbone: Backbone, num_classes: int) -> "keras.Model":
    linear = HeadSettings(0, "relu", "adamw", _DROPOUT, 0.0, 0.0, 0.0)  # the rest is for training it alone
    return join(backbone, build_head(backbone.build().output_shape[-1], num_classes, linear))


def _from_cache(dataset: Dataset, backbone: Backbone, params: Params, folder: Path) -> tuple[Training, float]:
    """Regraft's side, and the seconds that filling the cache took."""
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=0)
    trunk = load_trunk(backbone, folder / "graphs")
    store = open_feature_store(folder / "store", trunk)
    extractor = Extractor(views, trunk, store, params.machine)
    receipt = extractor.fill_store(dataset, activations="stored", on_progress=lambda done, total: None)
    network = _network(backbone, len(dataset.class_names))
    trainer = start_trainer(network, backbone.cut, params.fine_tune.layers)
    inputs = cached_activations(dataset, store.activations, views, seed=params.seed)
    train = Images(inputs, dataset.rows.class_index.to_numpy())
    val = Images(inputs, train.class_indices[:1])
    images = TrainingImages(train, val, len(dataset.class_names))
    plan = Plan(params.fine_tune, "none", params.seed)
    return Training(trainer, images, plan, Checkpoint(folder / "unused.npz")), receipt.seconds


def _from_images(dataset: Dataset, backbone: Backbone, params: Params, links: Path) -> tuple["keras.Model", Any]:
    """Keras' side: a compiled model and its photos, as links in a folder of their own: Keras sees just these."""
    import keras

    for number, photo in enumerate(dataset.photos()):
        source = (dataset.folder / photo.path).resolve()
        # Keras goes by the suffix; its decoder goes by the content.
        link = links / f"{photo.class_index:05}" / f"{number}{source.suffix.lower() or '.jpg'}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    photos = keras.utils.image_dataset_from_directory(
        links,
        label_mode="categorical",
        image_size=(backbone.image_size, backbone.image_size),
        batch_size=BATCH_SIZE,
        crop_to_aspect_ratio=True,
        verbose=False,
    ).prefetch(2)
    model = _network(backbone, len(dataset.class_names))
    choose_layers(model, backbone.cut, "top")
    settings = params.fine_tune
    optimizer = keras.optimizers.AdamW(settings.learning_rate, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    # XLA makes convolutions on the CPU many times slower.
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING), jit_compile=False)
    return model, photos


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.fine_tune",
        description="An epoch of fine-tuning, from the cache and from images.",
    )
    parser.add_argument("photos", type=Path, help="a folder of labelled photos")
    parser.add_argument("--quick", action="store_true", help="320 images instead of 1,024, two epochs instead of five")
    arguments = parser.parse_args()
    images, repeats = (320, 2) if arguments.quick else (1024, 5)
    result = measure(arguments.photos, images=images, repeats=repeats)
    print(describe_machine())
    print(
        f"an epoch over {result['images']} photos, cut after {result['cut']}: {result['cached_seconds_per_epoch']} s "
        f"from the cache, {result['images_seconds_per_epoch']} s from images: {result['speedup']}x"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
