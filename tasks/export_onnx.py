"""Stage 9 of 10: compose the file to ship, prove that it computes what was trained, and find out when it is unsure.

Reads models/model.npz, build/dataset.parquet, build/base_photos.parquet, build/left_out.parquet, build/manifest.parquet
and data/raw; writes models/model.onnx and reports/export.json.
"""

from dataclasses import asdict

import numpy as np
import pandas as pd

from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import load_trunk
from regraft.config import Params
from regraft.export.abstention import Choice, choose_threshold
from regraft.export.compose import build_classifier, compare, refuse_difference, write_graph
from regraft.export.scoring import examine
from regraft.export.trained_part import part_to_ship
from regraft.files import replacing, sha256_of, write_json
from regraft.photos.base_record import read_base_record
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.groups import first_of_each, groups_of
from regraft.photos.images import Threads
from regraft.photos.left_out import unseen
from regraft.photos.manifest import read_manifest
from regraft.photos.preparation import Preparation
from regraft.store.leases import store_in_use
from regraft.training.network_file import read_network
from tasks.progress import Progress
from tasks.stage import stage


@stage
def export_onnx(params: Params, progress: Progress) -> None:
    """Write the ONNX file; if it differs from what was trained on any of the photos, the stage fails.

    The file runs over all of val: its threshold follows from the very probabilities that it gives. Where only the head
    was trained, its frozen part is run on photos that it has not seen before, and the whole file on those to compare.
    """
    settings, paths, machine = params.export_onnx, params.paths, params.machine
    dataset = unseen(read_dataset(paths.dataset, paths.raw), paths.left_out)
    backbone = choose_backbone(params.backbone)
    preparation = Preparation(backbone.image_size, params.preprocess.crop_fraction)
    trunk = load_trunk(backbone, paths.store / "graphs")
    part = part_to_ship(read_network(paths.model), backbone, trunk, preparation)
    graph = build_classifier(part, backbone, trunk, preparation, dataset.class_names)
    target, val = params.evaluate.target_precision, dataset.of("val")
    photos = val if target else val.head(settings.parity_images)
    compared, threads = settings.parity_images, Threads(machine.workers, progress("photos"))
    with store_in_use(paths.store, None), replacing(paths.onnx) as draft:
        graph, said = examine(draft, graph, photos, threads, whole_on=compared, store=paths.store)
        parity = compare(said[:compared], part.expected, photos.head(compared))
        refuse_difference(parity, paths.onnx, tolerance=settings.tolerance)
        choice = _choose(photos, read_manifest(paths.manifest)[1], said, target)
        write_graph(draft, graph, choice.promise)
    file = {
        "sha256": sha256_of(paths.onnx),
        "bytes": paths.onnx.stat().st_size,
        "trained": part.trained,
        "base": read_base_record(paths.base_photos, paths.raw).name,
    }
    proof = {"parity": asdict(parity), "frozen_graph": trunk.agreement and asdict(trunk.agreement)}
    write_json(paths.reports / "export.json", {**file, **proof, "abstention": choice.as_report()})


def _choose(val: Dataset, manifest: pd.DataFrame, said: np.ndarray, target: float | None) -> Choice:
    """Return from which probability on the file answers; of near-duplicates one photo counts."""
    counted = first_of_each(groups_of(val, manifest))
    right = said.argmax(axis=1) == val.rows.class_index.to_numpy()
    return choose_threshold(right[counted], said.max(axis=1)[counted], target)


if __name__ == "__main__":
    export_onnx.run()
