"""Stage 9 of 11: compose and calibrate the file to ship, prove that it computes what was trained; when is it unsure?

Reads models/model.npz, build/dataset.parquet, build/base_photos.parquet, build/left_out.parquet, build/manifest.parquet
and data/raw; writes models/model.onnx and reports/export.json.
"""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from regraft.core.config import Params
from regraft.core.files import fingerprint, replacing, sha256_of, write_json
from regraft.export.abstention import Choice, choose_threshold
from regraft.export.calibration import rows_for_use
from regraft.export.classifier import OnnxClassifier, with_facts
from regraft.export.compose import build_classifier, part_to_ship, with_head, write_graph
from regraft.export.finishing import Material, examine, finish, look, prove, refuse_difference
from regraft.photos.groups import first_of_each, groups_of
from regraft.photos.left_out import unseen
from regraft.photos.manifest import read_manifest
from regraft.photos.preparation import Preparation
from regraft.photos.sample import JUDGED, with_sample
from regraft.training.network_file import read_network
from tasks.code_record import what_decides
from tasks.progress import Progress
from tasks.stage import stage
from tasks.stage_inputs import StageInputs


@stage
def export_onnx(params: Params, progress: Progress) -> None:
    """Write the ONNX file; if it differs from what was trained on any of the photos, the stage fails.

    What comes before the head runs over all of val and some of train, and all that is decided here follows from that.
    Where only the head was trained, that part is frozen, and is run on photos that it has not seen before.
    """
    paths, inputs = params.paths, StageInputs(params, progress)
    dataset = unseen(with_sample(inputs.dataset, "val", JUDGED), paths.left_out)
    counted = first_of_each(groups_of(dataset.of("val"), read_manifest(paths.manifest)[1]))
    material = Material(dataset, counted, inputs.threads)
    backbone, trunk = inputs.backbone, inputs.trunk
    preparation = Preparation(backbone.image_size, params.preprocess.crop_fraction)
    part = part_to_ship(read_network(paths.model), backbone, trunk, preparation)
    plain = build_classifier(part, backbone, trunk, preparation, dataset.class_names)
    with inputs.store_in_use(), replacing(paths.onnx) as draft:
        features = look(draft, plain, material, paths.store, shared=params.machine.shared_store)
        ending = finish(part.head, features, material, params.export_onnx.class_shares, params.train_head.class_weight)
        graph = with_facts(with_head(plain, ending.head, ending.prototypes), ending.facts | _origin(params))
        graph, said = examine(draft, graph, material, features[0])
        classifier, expected = OnnxClassifier(draft), part.expected(ending.head)
        parities = prove(classifier, expected, dataset, material.threads)
        refuse_difference(parities, paths.onnx)
        choice = _choose(material, said.probabilities, params)
        write_graph(draft, graph, choice.as_metadata())
    report = {
        "sha256": sha256_of(paths.onnx),
        "bytes": paths.onnx.stat().st_size,
        "trained": part.trained,
        "base": inputs.base_record.name,
        "parity": {name: asdict(parity) for name, parity in parities.items()},
        "frozen_graph": trunk.agreement and asdict(trunk.agreement),
        "calibration": asdict(ending.calibration) | {"used": ending.calibration.temperature},
        "novel_above": ending.novel_above,
        "novel_share": ending.novel_share,
        "abstention": asdict(choice),
    }
    write_json(paths.reports / "export.json", report)


def _origin(params: Params) -> dict[str, str]:
    """Return what the file was made from, for its metadata: nothing that differs where all of that is equal.

    No date and no commit, since the same inputs have to give the same bytes; the receipt of a run names both beside the
    file's SHA-256.
    """
    code = what_decides("export_onnx")
    return {
        "data_sha256": sha256_of(params.paths.dataset),
        "network_sha256": sha256_of(params.paths.model),
        "params_sha256": fingerprint(_settings(params)),
        "code_sha256": code.digest,
        "versions": json.dumps(dict(sorted(code.libraries.items()))),
    }


def _settings(params: Params) -> dict[str, Any]:
    """Return the settings of this stage; those of the stages before it have decided on the network."""
    return {
        "backbone": params.backbone.model_dump(mode="json"),
        "class_weight": params.train_head.class_weight,
        "crop_fraction": params.preprocess.crop_fraction,
        "class_shares": params.export_onnx.class_shares,
        "target_precision": params.evaluate.target_precision,
    }


def _choose(material: Material, said: np.ndarray, params: Params) -> Choice:
    """Return from which probability on the file answers; of near-duplicates one photo counts."""
    counted, labels = material.counted, material.val.rows.class_index.to_numpy()
    in_use = rows_for_use(labels[counted], material.dataset.class_names, params.export_onnx.class_shares)
    right, largest = said.argmax(axis=1) == labels, said.max(axis=1, initial=0)
    return choose_threshold(right[counted], largest[counted], params.evaluate.target_precision, in_use)


if __name__ == "__main__":
    export_onnx.run()
