"""The backbones that params.yaml can name, and what one of them costs.

python -m regraft.backbones                       list them
python -m regraft.backbones NAME [--weights W] [--image-size N] [--preprocessing MODE]
                                                  size, work, speed on this machine, and where it can be cut
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from regraft.backbones.catalogue import CATALOGUE, Backbone, catalogue, choose_backbone
from regraft.backbones.cut_points import cut_points, multiply_adds
from regraft.backbones.preprocessing import MODES
from regraft.config import BackboneChoice
from regraft.errors import RegraftError

_SECONDS = 2  # of measuring the speed, at least


def list_all() -> None:
    """Print every name with the facts that are known before anything is loaded."""
    for name, recipe in catalogue().items():
        print(f"{name:22} {recipe.image_size} pixels, preprocessing {recipe.preprocessing}")
        if name in CATALOGUE:
            print(f"{'':22} {recipe.title}, {recipe.weights_source}, {recipe.weights_licence}")
        else:
            print(f"{'':22} {recipe.title}, ImageNet weights {recipe.weights_source}, {recipe.weights_licence}")
    print("Also the path of your own model.keras, with backbone.weights: own.")


def tell(backbone: Backbone) -> None:
    """Print what one backbone is, what it costs here, and where it can be cut."""
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
    for what, value in rows.items():
        print(f"{what:20}{value}")
    print(f"\n{'cut point':40}{'bytes stored per view':>22}{'work above it':>15}")
    for point in cut_points(model):
        mark = "  <- auto" if point.name == backbone.cut else ""
        print(f"{point.name:40}{point.activation_bytes:>22,}{point.share_above:>15.1%}{mark}")


def _images_per_second(backbone: Backbone) -> float:
    """Run the frozen graph on noise, as the extraction runs it: one image at a time on each core."""
    import numpy as np

    from regraft.backbones.trunk import load_trunk
    from regraft.photos.images import in_threads

    size = backbone.image_size
    images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory(prefix="regraft-backbone-") as folder:
        trunk = load_trunk(backbone, Path(folder))
        trunk.run(images, with_activations=False)
        count, seconds = 1, 0.0
        while seconds < _SECONDS:
            count *= 2
            start = time.perf_counter()
            for _ in in_threads(lambda _: trunk.run(images, with_activations=False), range(count), workers=0):
                pass
            seconds = time.perf_counter() - start
    return count / seconds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m regraft.backbones", description="The backbones of Regraft.")
    parser.add_argument("name", nargs="?", help="a name, or the path of a .keras file")
    parser.add_argument("--weights", default="null", help="as backbone.weights in params.yaml; without it random ones")
    parser.add_argument("--image-size", type=int, help="side in pixels; without it the one it was pretrained at")
    parser.add_argument("--preprocessing", default="auto", choices=["auto", "none", "tf", "torch", "caffe"])
    arguments = parser.parse_args()
    if arguments.name is None:
        list_all()
        return
    weights = None if arguments.weights == "null" else arguments.weights
    try:
        tell(
            choose_backbone(
                BackboneChoice(
                    name=arguments.name,
                    weights="own" if weights is None and arguments.name.endswith(".keras") else weights,
                    preprocessing=arguments.preprocessing,
                    image_size=arguments.image_size or "auto",
                    cut="auto",
                    engine="onnxruntime",
                )
            )
        )
    except RegraftError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
