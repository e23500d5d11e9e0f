"""The whole chain on a folder of photos: wall time and peak memory of each stage, and the figures on the test split.

    python -m benchmarks.chain DIR [--set fine_tune.epochs=4 ...] [--keep FOLDER]

DIR is copied into a temporary project, so nothing of it or of this project changes. Each stage is a process of its own,
as under `dvc repro`; DVC's own time is not in it.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import load_trunk
from regraft.export.classifier import OnnxClassifier
from regraft.export.finishing import as_shipped
from regraft.export.parity import Parity, compare
from regraft.export.scoring import probabilities_of
from regraft.export.trained_part import part_to_ship
from regraft.files import read_json
from regraft.params_file import load_params
from regraft.photos.dataset import read_dataset
from regraft.photos.images import Threads
from regraft.photos.preparation import Preparation
from regraft.training.keras_network import build_network
from regraft.training.network_file import read_network
from tests.support.machine import describe_machine
from tests.support.pipeline import ROOT, STAGES, Ended, run_stage, write_params


def run_chain(photos: Path, settings: list[str], keep: Path | None) -> dict[str, Any]:
    """Run all stages on a copy of `photos`, in the folder `keep` if given, and return what came out."""
    with tempfile.TemporaryDirectory(prefix="regraft-chain-") as temporary:
        project = keep or Path(temporary)
        shutil.copytree(photos, project / "data" / "raw", ignore=shutil.ignore_patterns(".*"))
        shutil.copy(ROOT / "dvc.yaml", project)
        (project / ".dvc").mkdir()  # where stages keep their locks; DVC itself is not used
        write_params(project / "params.yaml", settings)
        stages = {name: _figures(run_stage(name, project)) for name in STAGES}
        reports = project / "reports"
        return {
            "stages": stages,
            "seconds": round(sum(stage["seconds"] for stage in stages.values()), 1),
            "peak_memory_mb": max(stage["peak_memory_mb"] for stage in stages.values()),
            "receipt": read_json(reports / "features.json"),
            "head_val_accuracy": read_json(reports / "head.json")["val"]["accuracy"],
            "fine_tuned": read_json(reports / "fine_tune.json"),
            "export": read_json(reports / "export.json"),
            "test": read_json(reports / "metrics.json")["test"],
            "parity_on_test": asdict(parity_on_test(project)),
        }


def parity_on_test(project: Path) -> Parity:
    """Compare the shipped file with the whole Keras model over the test split, from the raw files.

    A quantised backbone is compared with its own graph and what was trained.
    """
    params = load_params(project / "params.yaml")
    backbone = choose_backbone(params.backbone)
    trunk = load_trunk(backbone, project / params.paths.store / "graphs")
    preparation = Preparation(backbone.image_size, params.preprocess.crop_fraction)
    test = read_dataset(project / params.paths.dataset, project / params.paths.raw).of("test")
    classifier = OnnxClassifier(project / params.paths.onnx)
    said = probabilities_of(classifier, test, Threads(params.machine.workers), stored=None)
    network = read_network(project / params.paths.model)
    head = as_shipped(network.head, classifier.metadata)
    if trunk.is_quantised:
        return compare(said, part_to_ship(network, backbone, trunk, preparation).expected(head), test)
    model = build_network(backbone, replace(network, head=head))

    def by_keras(photos: Iterable[np.ndarray]) -> np.ndarray:
        return model.predict_on_batch(np.stack([preparation(photo) for photo in photos]).astype(np.float32))

    return compare(said, by_keras, test)


def _figures(ended: Ended) -> dict[str, float]:
    return {"seconds": round(ended.seconds, 1), "peak_memory_mb": round(ended.peak_memory_mb)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chain", description="Time, memory and figures of the whole chain."
    )
    parser.add_argument("photos", type=Path, help="a folder of labelled photos in any of the three layouts")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the project there instead of deleting it")
    arguments = parser.parse_args()
    result = run_chain(arguments.photos, arguments.settings, arguments.keep)
    print(describe_machine())
    for name, stage in result["stages"].items():
        print(f"{name:16} {stage['seconds']:7.1f} s {stage['peak_memory_mb']:7.0f} MB")
    print(f"{'sum':16} {result['seconds']:7.1f} s {result['peak_memory_mb']:7.0f} MB at most")
    parity = result["parity_on_test"]
    print(f"test accuracy {result['test']['accuracy']:.4f} on {result['test']['images']} photos; against Keras:")
    print(f"  same top-1 {parity['same_top1']:.2%}, largest difference {parity['largest_difference']:.1e}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
