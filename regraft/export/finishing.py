"""The end of a file: what is decided on val, and the proof that the file computes what was trained.

The body of a file, from photo to features, is run over val and some training photos. All that is decided then changes
the head alone, so no photo is run again. The proof compares raw photos, shapes that no photo has, and batches.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from regraft.backbones.catalogue import choose_backbone
from regraft.core.config import BackboneChoice, ClassWeight
from regraft.core.errors import ExportMismatch, RegraftError
from regraft.core.files import reading, replacing
from regraft.export.calibration import (
    SHARES,
    SHIFT,
    TEMPERATURE,
    Calibration,
    choose_temperature,
    logits_of,
    shift_for_use,
)
from regraft.export.classifier import (
    BORDER,
    Answers,
    OnnxClassifier,
    answers_of,
    features_of,
    open_said,
    probabilities_of,
    with_facts,
)
from regraft.export.compose import Expected, class_prototypes, novelty_of, write_graph
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.serving.thresholds import ABOVE, PHOTOS, SHARE, rank_of, share_of
from regraft.training.keras_network import build_network
from regraft.training.metrics import objective_of, score
from regraft.training.network_file import Head, read_network, start_keras

IMAGES = 32  # photos of each split that are compared, from the raw file to probabilities
PROTOTYPE_IMAGES = 32  # training photos of each class whose features are averaged for the output novelty
TOLERANCE = 0.002  # largest difference of any probability; a wrong layer or order of classes differs by far more
TEST = "test photos"  # only reported


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

    @property
    def typical(self) -> Dataset:
        """The first training photos of each class by digest: as good as drawn, and nearly the same in every run."""
        rows = self.dataset.of("train").rows.sort_values("digest", kind="stable")
        rows = rows.groupby("class_index").head(PROTOTYPE_IMAGES)
        return self.dataset.with_rows(rows.sort_index().reset_index(drop=True))


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
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of the val photos and of the typical ones: float32, shape (n, feature_dim).

    Where the body is frozen, it is run only on photos that it has not seen before; `store`, and the shared root that
    belongs to it, are used under a lease.
    """
    write_graph(draft, graph)
    classifier = OnnxClassifier(draft)
    stored = open_said(store, classifier, shared=shared) if classifier.frozen_parts else None
    val, typical = (
        features_of(classifier, photos, material.threads, stored=stored) for photos in (material.val, material.typical)
    )
    return val, typical


def finish(
    head: Head,
    features: tuple[np.ndarray, np.ndarray],
    material: Material,
    class_shares: Mapping[str, float] | None,
    class_weight: ClassWeight,
) -> Ending:
    """Decide on temperature, shift, prototypes and the threshold of novelty."""
    (val, typical), counted, names = features, material.counted, material.dataset.class_names
    labels = material.val.rows.class_index.to_numpy()
    logits = logits_of(head.probabilities(val[counted]))
    calibration = choose_temperature(logits, labels[counted], objective_of(class_weight))
    mix = material.dataset.of("train").rows.class_index.to_numpy()
    shift = shift_for_use(class_shares, names, mix, class_weight)
    ready = head.rescaled(calibration.temperature, shift)
    prototypes = class_prototypes(typical, material.typical.rows.class_index.to_numpy(), head.num_classes)
    novelty = novelty_of(val[counted], prototypes)
    novel_above, novel_share = novel_from(novelty), share_of(len(novelty))
    after = score(labels, ready.probabilities(val))
    facts = {
        TEMPERATURE: repr(calibration.temperature),
        ABOVE: repr(novel_above),
        SHARE: repr(novel_share),
        PHOTOS: str(len(novelty)),
        "val": json.dumps({"images": len(val), "accuracy": after.accuracy, "log_loss": after.log_loss}),
    }
    if class_shares and shift is not None:
        facts[SHIFT] = json.dumps([float(each) for each in shift])
        facts[SHARES] = json.dumps({name: class_shares[name] for name in names})
    return Ending(ready, prototypes, calibration, novel_above, novel_share, facts)


def novel_from(novelty: np.ndarray) -> float:
    """Return the threshold from the novelties of independent val photos, shape (n,)."""
    return float(np.sort(novelty)[-rank_of(len(novelty))])


def examine(
    draft: Path, graph: onnx.ModelProto, material: Material, features: np.ndarray
) -> tuple[onnx.ModelProto, Answers]:
    """Write a new file, and return its graph and its answers for the val photos.

    They are those of its head for the features only if the whole file gives the very same ones for the first `IMAGES`
    photos; else the whole file is run on all of them, and no longer says where it could be taken apart: that costs
    time, nothing else.
    """
    write_graph(draft, graph)
    classifier, photos, threads = OnnxClassifier(draft), material.val, material.threads
    whole = answers_of(classifier, photos.head(IMAGES), threads, stored=None)
    parts = Answers.of(classifier.rows_from_features(features), classifier)
    if np.array_equal(whole.probabilities, parts.probabilities[:IMAGES]):
        return graph, parts
    graph = with_facts(graph, {BORDER: None})
    write_graph(draft, graph)
    return graph, answers_of(OnnxClassifier(draft), photos, threads, stored=None)


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely the ONNX file follows what was trained, over some photos."""

    images: int
    largest_difference: float  # of any probability
    mean_difference: float  # of all probabilities
    same_top1: float  # share of photos with the same most probable class
    largest_gap: float  # between the two most probable classes, of the photos whose most probable class differs; or 0


def parity_of(onnx_side: np.ndarray, other_side: np.ndarray) -> Parity:
    """Compare probabilities, both of shape (n, num_classes)."""
    difference = np.abs(onnx_side - other_side)
    differs = onnx_side.argmax(axis=1) != other_side.argmax(axis=1)
    first_two = np.sort(other_side, axis=1)[:, -2:]
    gaps = (first_two[:, -1] - first_two[:, 0])[differs]
    same = 1 - float(differs.mean())
    return Parity(len(onnx_side), float(difference.max()), float(difference.mean()), same, float(gaps.max(initial=0)))


def prove(classifier: OnnxClassifier, expected: Expected, dataset: Dataset, threads: Threads) -> dict[str, Parity]:
    """Compare a file with what was trained, and return how closely it follows by what was compared."""
    found = {}
    for split in ("val", "train", "test"):
        photos = dataset.of(split).head(IMAGES)
        if len(photos):
            onnx_side = probabilities_of(classifier, photos, threads, stored=None)
            found[f"{split} photos"] = parity_of(onnx_side, expected(map(photos.read_photo, photos.photos())))
    val = dataset.of("val").head(IMAGES)
    prepared = np.stack([classifier.preparation(val.read_photo(photo)) for photo in val.photos()])
    found["extreme pictures"], found["photos in a batch"] = compare_shapes(classifier.batch, expected, prepared)
    return found


def compare_shapes(
    said: Callable[[np.ndarray], np.ndarray], expected: Expected, prepared: np.ndarray
) -> tuple[Parity, Parity]:
    """Compare where a graph may be right on photos of a usual size alone.

    Args:
        said: of the file: a batch of photos of one size, (n, height, width, 3), to probabilities.
        expected: of the `TrainedPart`.
        prepared: real photos of one size, uint8, shape (n, side, side, 3).

    Returns:
        The file on pictures of extreme shapes, one by one, against what was trained; and on a batch against one by one.
    """
    extremes = list(extreme_pictures())
    alone, one_by_one = (np.concatenate([said(each[None]) for each in some]) for some in (extremes, prepared))
    return parity_of(alone, expected(extremes)), parity_of(said(prepared), one_by_one)


def extreme_pictures() -> Iterable[np.ndarray]:
    """Yield pictures that are no photos, and always the same: one pixel, strips, black, white, grey, a portrait.

    Each is uint8 RGB of shape (height, width, 3). What is transparent is white by then: see `regraft.photos.images`.
    """
    random = np.random.default_rng(0)
    for height, width in [(1, 1), (1, 2), (3, 10_000), (10_000, 3), (400, 225)]:
        yield random.integers(0, 256, (height, width, 3), np.uint8)
    yield np.repeat(random.integers(0, 256, (97, 131, 1), np.uint8), 3, axis=2)
    yield np.zeros((50, 60, 3), np.uint8)
    yield np.full((60, 50, 3), 255, np.uint8)


def refuse_difference(parities: Mapping[str, Parity], path: Path) -> None:
    """Refuse to ship a graph that computes something else than what was trained; test photos do not decide.

    Within `TOLERANCE` no photo has another most probable class whose first two are more than twice that apart.

    Raises:
        ExportMismatch: they differ by more.
    """
    for compared, parity in parities.items():
        if compared != TEST and not parity.largest_difference <= TOLERANCE:  # NaN is no agreement
            raise ExportMismatch(
                f"the ONNX graph and the trained network differ by {parity.largest_difference:.2g} in a probability, "
                f"over {parity.images} {compared} (allowed: {TOLERANCE:g}). {path} is left as it was. "
                f"This is a defect of the conversion: please report it with the versions in requirements.lock."
            )


def write_keras(path: Path, choice: BackboneChoice, *, network: Path, onnx: Path) -> None:
    """Write the whole network in Keras' own format, as the ONNX file has it.

    Raises:
        FileNotFoundError: there is no such network.
        Damaged: the network is damaged.
        RegraftError: there is no such ONNX file, it is none of Regraft's, or it was made from another backbone.
    """
    trained, backbone = read_network(network), choose_backbone(choice)
    facts = OnnxClassifier(onnx).metadata
    with reading(onnx, "a model that Regraft exported"):
        side = json.loads(facts["preprocessing"])["image_size"]
        exported = [facts[name] for name in ("backbone", "backbone_preprocessing", "backbone_weights_sha256")]
    if (*exported, side) != (backbone.name, backbone.preprocessing, backbone.weights_digest, backbone.image_size):
        raise RegraftError(
            f"{onnx} was trained on {exported[0]} at {side} pixels, and params.yaml names {backbone.name} at "
            f"{backbone.image_size} pixels, or other weights or preprocessing. Run `regraft retrain`, or put "
            f"params.yaml back."
        )
    with reading(onnx, "a model that Regraft exported"):
        shift = json.loads(facts[SHIFT]) if SHIFT in facts else None
        head = trained.head.rescaled(float(facts.get(TEMPERATURE, "1")), shift)
    start_keras(0)
    model = build_network(backbone, replace(trained, head=head))
    with replacing(path) as temporary:
        model.save(temporary)
