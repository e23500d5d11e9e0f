"""The end of a file: the head with its temperature, what counts as novel, and whether it all computes as it should.

The first part of a file, from photo to features, is run over val and some training photos. All that is decided then
changes the head alone, so no photo is run again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from regraft.core.config import ClassWeight, ExportOnnx
from regraft.export.calibration import Calibration, choose_temperature, logits_of, shift_for_use
from regraft.export.class_shares import SHARES, SHIFT
from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import write_graph
from regraft.export.onnx_head import class_prototypes, novel_from, novelty_of
from regraft.export.parity import IMAGES
from regraft.export.scoring import Answers, answers_of, features_of, open_said
from regraft.export.two_parts import BORDER, with_facts
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.serving.novelty import ABOVE, PHOTOS, SHARE, share_of
from regraft.training.metrics import objective_of, score
from regraft.training.network_file import Head

PROTOTYPE_IMAGES = 32  # training photos of each class whose features are averaged for the output novelty
TEMPERATURE = "temperature"  # in the metadata, as `SHIFT`: what was done to the head that was trained


@dataclass(frozen=True, slots=True)
class Material:
    """The photos that a file is finished and proven on."""

    dataset: Dataset  # of all splits
    counted: np.ndarray  # which val photos count where independent ones are needed, bool: one per group
    threads: Threads  # that decode and run

    @property
    def val(self) -> Dataset:
        """On which everything is decided here."""
        return self.dataset.of("val")

    def sample(self, per_class: int) -> Dataset:
        """Return the first training photos of each class by digest: as good as drawn, and nearly the same at night."""
        rows = self.dataset.of("train").rows.sort_values("digest", kind="stable").groupby("class_index").head(per_class)
        return self.dataset.with_rows(rows.sort_index().reset_index(drop=True))


@dataclass(frozen=True, slots=True)
class Seen:
    """What the first part of a file says of photos whose class is known."""

    features: np.ndarray  # float32, shape (n, feature_dim)
    class_indices: np.ndarray  # shape (n,)


@dataclass(frozen=True, slots=True)
class Ending:
    """What is decided when everything else is trained."""

    head: Head  # with temperature and shift
    prototypes: np.ndarray  # float32, shape (num_classes, feature_dim)
    calibration: Calibration
    novel_above: float
    novel_share: float  # of ordinary photos, which are above it by chance
    facts: dict[str, str]  # for the metadata


def look(
    draft: Path, graph: onnx.ModelProto, material: Material, store: Path, *, shared: str | None = None
) -> tuple[Seen, Seen]:
    """Return what the first part of a file says of all val photos, and of some training photos of each class.

    Where it is frozen, it is run on photos only that it has not seen before; `store`, and the shared root that belongs
    to it, are used under a lease.
    """
    write_graph(draft, graph)
    classifier = OnnxClassifier(draft)
    stored = open_said(store, classifier, shared=shared) if classifier.frozen_parts else None
    val, some = (
        Seen(features_of(classifier, photos, material.threads, stored=stored), photos.rows.class_index.to_numpy())
        for photos in (material.val, material.sample(PROTOTYPE_IMAGES))
    )
    return val, some


def finish(
    head: Head, seen: tuple[Seen, Seen], material: Material, settings: ExportOnnx, class_weight: ClassWeight
) -> Ending:
    """Decide on temperature, shift, prototypes and the threshold of novelty.

    Args:
        head: as it was trained.
        seen: from `look`.
        material: the same.
        settings: section `export_onnx` of params.yaml.
        class_weight: `train_head.class_weight`.
    """
    (val, some), counted, train = seen, material.counted, material.dataset.of("train").rows
    logits = logits_of(head.probabilities(val.features[counted]))
    calibration = choose_temperature(logits, val.class_indices[counted], objective_of(class_weight))
    temperature = calibration.temperature
    names, mix = material.dataset.class_names, train.class_index.to_numpy()
    shift = shift_for_use(settings.class_shares, names, mix, class_weight)
    ready = head.rescaled(temperature, shift)
    prototypes = class_prototypes(some.features, some.class_indices, head.num_classes)
    novelty = novelty_of(val.features[counted], prototypes)
    novel_above, novel_share = novel_from(novelty), share_of(len(novelty))
    after = score(val.class_indices, ready.probabilities(val.features))
    facts = {
        TEMPERATURE: repr(temperature),
        ABOVE: repr(novel_above),
        SHARE: repr(novel_share),
        PHOTOS: str(len(novelty)),
        "val": json.dumps({"images": len(val.features), "accuracy": after.accuracy, "log_loss": after.log_loss}),
    }
    if settings.class_shares and shift is not None:
        facts[SHIFT] = json.dumps([float(each) for each in shift])
        facts[SHARES] = json.dumps({name: settings.class_shares[name] for name in names})
    return Ending(ready, prototypes, calibration, novel_above, novel_share, facts)


def as_shipped(head: Head, metadata: Mapping[str, str]) -> Head:
    """Return the head of a file from the one that was trained, and from what the file says of itself."""
    shift = json.loads(metadata[SHIFT]) if SHIFT in metadata else None
    return head.rescaled(float(metadata.get(TEMPERATURE, "1")), shift)


def examine(
    draft: Path, graph: onnx.ModelProto, material: Material, features: np.ndarray
) -> tuple[onnx.ModelProto, Answers]:
    """Write a new file, and return its graph and what it says of the val photos.

    That is what its head says of their features, only if it gives the very answers that the whole file gives; else the
    whole file is run on all of them, and no longer says where it could be taken apart: that costs time, nothing else.

    Args:
        draft: where it is written.
        graph: from `with_head`.
        material: has the val photos.
        features: of these photos, from `look` at the same first part.
    """
    write_graph(draft, graph)
    classifier, photos, threads = OnnxClassifier(draft), material.val, material.threads
    rows = classifier.rows_from_features(features)
    whole = answers_of(classifier, photos.head(IMAGES), threads, stored=None)
    parts = Answers.of(rows, classifier)
    if np.array_equal(whole.probabilities, parts.probabilities[:IMAGES]):
        return graph, parts
    graph = with_facts(graph, {BORDER: None})
    write_graph(draft, graph)
    return graph, answers_of(OnnxClassifier(draft), photos, threads, stored=None)
