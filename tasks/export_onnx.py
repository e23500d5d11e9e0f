"""Stage 7 of 8: compose the file to ship and prove on real photos that it computes what was trained.

Reads models/model.keras, reports/fine_tune.json, build/dataset.parquet and data/raw; writes models/model.onnx and
reports/export.json.
"""

from dataclasses import asdict

from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import load_trunk
from regraft.config import Params
from regraft.export.compose import build_classifier, expected_by_keras, save_if_equal
from regraft.files import read_json, sha256_of, write_json
from regraft.photos.dataset import read_dataset
from regraft.photos.images import Threads
from regraft.photos.preparation import Preparation
from regraft.training.keras_models import load_model, start_keras
from tasks.progress import Progress
from tasks.stage import stage


@stage
def export_onnx(params: Params, progress: Progress) -> None:
    """Write the ONNX file; if it differs from the Keras model on any of the photos, the stage fails."""
    settings, paths, machine = params.export_onnx, params.paths, params.machine
    start_keras(params.seed)
    dataset = read_dataset(paths.dataset, paths.raw)
    backbone = choose_backbone(params.backbone)
    preparation = Preparation(backbone.image_size, params.preprocess.crop_fraction)
    model = load_model(paths.model)
    trained = read_json(paths.reports / "fine_tune.json", "trained")["trained"]
    trunk = load_trunk(backbone, paths.store / "graphs")
    graph = build_classifier(model, backbone, trunk, preparation, dataset.class_names, trained=trained)
    parity = save_if_equal(
        paths.onnx,
        graph,
        expected_by_keras(model, backbone, trunk, preparation, trained=trained),
        dataset.of("val").head(settings.parity_images),
        Threads(machine.workers, progress("photos")),
        tolerance=settings.tolerance,
    )
    file = {"sha256": sha256_of(paths.onnx), "bytes": paths.onnx.stat().st_size, "trained": trained}
    write_json(paths.reports / "export.json", {**file, "parity": asdict(parity)})


if __name__ == "__main__":
    export_onnx.run()
