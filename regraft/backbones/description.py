"""The backbones that params.yaml can name, and what one of them costs on this machine, as text for a person."""

import os
import tempfile
import time
from pathlib import Path

from regraft.backbones.catalogue import CATALOGUE, Backbone, catalogue
from regraft.backbones.cut_points import cut_points, multiply_adds
from regraft.backbones.preprocessing import MODES

_SECONDS = 2  # of measuring the speed, at least


def list_backbones() -> str:
    """Return every name with the facts that are known before anything is loaded."""
    lines = []
    for name, recipe in catalogue().items():
        source = recipe.weights_source if name in CATALOGUE else f"ImageNet weights {recipe.weights_source}"
        lines.append(f"{name:22} {recipe.image_size} pixels, preprocessing {recipe.preprocessing}")
        lines.append(f"{'':22} {recipe.title}, {source}, {recipe.weights_licence}")
    return "\n".join([*lines, "Also the path of your own model.keras, with backbone.weights: own."])


def describe(backbone: Backbone) -> str:
    """Return what one backbone is, what it costs here, and where it can be cut; its speed is measured for seconds.

    Raises:
        InvalidWeights: they cannot be loaded.
    """
    import keras

    model = backbone.build()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    epsilons = ", ".join(sorted({f"{layer.epsilon:g}" for layer in norms}))
    weights = model.count_params()
    rows = {
        "name": f"{backbone.name} ({backbone.recipe.title})",
        "image size": f"{backbone.image_size} pixels (pretrained at {backbone.recipe.image_size})",
        "preprocessing": f"{backbone.preprocessing}: {MODES[backbone.preprocessing]}",
        "parameters": f"{weights:,} ({4 * weights / 1e6:.1f} MB)",
        "multiply-adds": f"{multiply_adds(model) / 1e6:,.0f} million per image",
        "features": f"{model.output_shape[1]:,} per image",
        "BatchNorm": f"{len(norms)} layers, epsilon {epsilons}" if norms else "none",
        "weights": f"{backbone.weights or 'random'} ({backbone.weights_digest})",
        "pretrained weights": f"{backbone.recipe.weights_source}; {backbone.recipe.weights_licence}",
        "speed here": f"{_images_per_second(backbone):,.1f} images/s, float32, ONNX Runtime, {os.cpu_count()} threads",
    }
    lines = [f"{what:20}{value}" for what, value in rows.items()]
    lines += ["", f"{'cut point':40}{'bytes stored per view':>22}{'work above it':>15}"]
    for point in cut_points(model):
        mark = "  <- auto" if point.name == backbone.cut else ""
        lines.append(f"{point.name:40}{point.activation_bytes:>22,}{point.share_above:>15.1%}{mark}")
    return "\n".join(lines)


def _images_per_second(backbone: Backbone) -> float:
    """Run the frozen graph on noise, as the extraction runs it: one image at a time on each core."""
    import numpy as np

    from regraft.backbones.trunk import load_trunk
    from regraft.photos.images import Threads

    size = backbone.image_size
    images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory(prefix="regraft-backbone-") as folder:
        trunk = load_trunk(backbone, Path(folder))
        trunk.run(images, with_activations=False)
        count, seconds = 1, 0.0
        while seconds < _SECONDS:
            count *= 2
            start = time.perf_counter()
            for _ in Threads(0).map(lambda _: trunk.run(images, with_activations=False), range(count)):
                pass
            seconds = time.perf_counter() - start
    return count / seconds
