"""The gate at work: a new model against the one in production and the anchors, on today's test photos."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.config import Promote
from regraft.export.calibration import as_learnt, shares_of, weights_for_use
from regraft.export.classifier import OnnxClassifier
from regraft.export.evaluation import share_right
from regraft.photos.dataset import Dataset
from regraft.photos.groups import groups_of_digests
from regraft.photos.manifest import slices_of
from regraft.production.gate.comparison import PairedComparison, Predictions, Selection, compare, select
from regraft.production.gate.rule import Decision, ask_if_replaced, both_ways, decide
from regraft.production.gate.verdict import Circumstances, Verdict, conclude, first_model, refuse_vanished
from regraft.production.training_data import Reference

_TIMED = 20  # photos, for the floor of milliseconds
_UNKNOWN = (
    "It is not known what the model in production was trained on, so photos of its training may be among the test "
    "photos."
)

Infer = Callable[[OnnxClassifier, Dataset], np.ndarray]  # probabilities of photos: float32, (n, num_classes)


@dataclass(frozen=True, slots=True)
class Former:
    """A model that is or was in production, and what it was trained on."""

    classifier: OnnxClassifier
    reference: Reference | None  # None where that is not known
    was_chosen: bool = False  # it was promoted because of its answers to the test photos
    recent: tuple[float, ...] | None = None  # as in `PairedComparison`


@dataclass(frozen=True, slots=True)
class Gate:
    """A new model, and the photos that it is judged on."""

    challenger: OnnxClassifier
    path: Path  # of its file
    dataset: Dataset  # today's photos
    groups: pd.DataFrame  # of today's photos digest, group, phash, given_group and slices, from the manifest
    settings: Promote
    infer: Infer
    max_hash_distance: int | None = None  # bits in which perceptual hashes of near-duplicates may differ

    @property
    def test(self) -> Dataset:
        """The test photos."""
        return self.dataset.of("test")

    def verdict(
        self, champion: Former | None, anchors: Sequence[Former], *, warnings: Sequence[str], looks: int
    ) -> Verdict:
        """Judge the new model.

        Args:
            champion: the model in production; None where there is none.
            anchors: the anchor and the first model of all, where they are other models.
            warnings: of this run, as sentences.
            looks: other models that were judged on these test photos before.
        """
        labels = self.test.rows.class_name.to_numpy(str)
        right, weights = self._as_shipped(labels)
        share = len(labels) / max(1, len(self.dataset))
        around = Circumstances(warnings, self._below_floors(labels, right, weights), looks, share)
        if champion is None:
            groups = groups_of_digests(self.test.rows.digest.tolist(), self.groups)
            return first_model(share_right(right, np.array(groups), weights), len(labels), self.settings, around)
        if vanished := self._vanished(champion.classifier):
            return refuse_vanished(vanished)
        selection, now = self._against(champion)
        before = {
            anchor.classifier.digest: self._against(anchor)[1]
            for anchor in anchors
            if not self._vanished(anchor.classifier)
        }
        decision = self._decide(champion, selection, now, [*before.values()])
        around = replace(
            around,
            warnings=[*([] if champion.reference else [_UNKNOWN]), *warnings],
            parts={"class": now.by_class.figures(), **self._slices(selection, now)},
        )
        return conclude(decision, now, before, selection, self.settings, around)

    def _decide(
        self, champion: Former, selection: Selection, now: PairedComparison, anchors: Sequence[PairedComparison]
    ) -> Decision:
        """Apply the rule, with the labels of today and, where some changed, those of production's record."""
        decision = decide(now, anchors, self.settings)
        if selection.old_labels:
            old = decide(self._by_old_labels(champion, selection), anchors, self.settings)
            decision = both_ways(decision, old, len(selection.old_labels), now.n)
        return ask_if_replaced(decision, selection.replaced)

    def _by_old_labels(self, champion: Former, selection: Selection) -> PairedComparison:
        """The comparison by the labels in production's record.

        Where a label changed, the model that follows it looks worse by several nats in its log loss, so there only
        accuracy counts.
        """
        common = set(champion.classifier.class_names) & set(self.challenger.class_names)
        labels = self.test.rows.class_name.to_list()
        for row, label in selection.old_labels.items():
            labels[row] = label
        rows = np.array([row for row in selection.rows.tolist() if labels[row] in common], int)
        found = self._compare(champion, rows, np.array(labels, str)[rows])
        is_same = np.array([row not in selection.old_labels for row in rows.tolist()], bool)
        return replace(found, losses=found.losses[is_same])

    def _slices(self, selection: Selection, now: PairedComparison) -> dict[str, list[dict[str, Any]]]:
        """The comparison for each value of each slice of labels.csv; photos without a value are a part as well."""
        rows = self.groups.drop_duplicates("digest").set_index("digest")
        rows = rows.reindex(self.test.rows.digest.iloc[selection.rows])
        return {
            name: now.by(rows[f"slice.{name}"].fillna("(none)").to_numpy(str)).figures() for name in slices_of(rows)
        }

    def _against(self, former: Former) -> tuple[Selection, PairedComparison]:
        known = (former.classifier.class_names, self.challenger.class_names)
        distance = self.max_hash_distance
        selection = select(self.test.rows, self.groups, former.reference, known, max_hash_distance=distance)
        labels = self.test.rows.class_name.to_numpy(str)[selection.rows]
        return selection, self._compare(former, selection.rows, labels)

    def _compare(self, former: Former, rows: np.ndarray, labels: np.ndarray) -> PairedComparison:
        photos = self.dataset.with_rows(self.test.rows.iloc[rows].reset_index(drop=True))
        found = compare(labels, self._learnt(former.classifier, photos), self._learnt(self.challenger, photos))
        return replace(found, was_chosen=former.was_chosen, recent=former.recent)

    def _learnt(self, classifier: OnnxClassifier, photos: Dataset) -> Predictions:
        """Predictions without `export_onnx.class_shares`: a setting that changed makes no model better or worse.

        Test photos have the mix of classes that models are trained on, so with another one equal models would differ.
        """
        return Predictions(classifier.class_names, as_learnt(self._infer(classifier, photos), classifier.metadata))

    def _infer(self, classifier: OnnxClassifier, photos: Dataset) -> np.ndarray:
        none = np.zeros((0, len(classifier.class_names)), np.float32)
        return self.infer(classifier, photos) if len(photos) else none

    def _as_shipped(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return on which test photos the new model is right, and the weight of each with classes as in use."""
        test, challenger = self.test, self.challenger
        predicted = Predictions(challenger.class_names, self._infer(challenger, test)).named()
        shares = shares_of(challenger.metadata)
        return predicted == labels, weights_for_use(test.rows.class_index.to_numpy(), test.class_names, shares)

    def _vanished(self, former: OnnxClassifier) -> list[str]:
        """The classes that a former model knows and today's photos lack, without retired ones."""
        return sorted({*former.class_names} - {*self.dataset.class_names} - {*self.settings.retired_classes})

    def _below_floors(self, labels: np.ndarray, right: np.ndarray, weights: np.ndarray | None) -> list[str]:
        """Return the floors of section `promote.floors` that the new model does not reach, as sentences."""
        floors, below = self.settings.floors, []
        accuracy = float(np.average(right, weights=weights)) if len(labels) else 0.0
        if floors.accuracy is not None and accuracy < floors.accuracy:
            below.append(
                f"its accuracy on {len(labels)} test photos is {accuracy:.4f}, below {_limit(floors, 'accuracy')}"
            )
        for name in np.unique(labels):
            recall, images = float(right[labels == name].mean()), int((labels == name).sum())
            if floors.recall is not None and recall < floors.recall:
                below.append(
                    f"recall of '{name}' on its {images} test photos is {recall:.3f}, below {_limit(floors, 'recall')}"
                )
        if floors.milliseconds is not None and (taken := self._milliseconds()) > floors.milliseconds:
            below.append(f"it takes {taken:.1f} ms for a photo on one core, above {_limit(floors, 'milliseconds')}")
        megabytes = self.path.stat().st_size / 1e6
        if floors.megabytes is not None and megabytes > floors.megabytes:
            below.append(f"{self.path} has {megabytes:.1f} MB, above {_limit(floors, 'megabytes')}")
        return below

    def _milliseconds(self) -> float:
        """The median time of the new model for one photo; 0 where there is none."""
        seconds = []
        for photo in self.test.head(_TIMED).photos():
            with self.dataset.opened(photo) as rgb:
                start = time.perf_counter()
                self.challenger.probabilities(rgb)
                seconds.append(time.perf_counter() - start)
        return 1000 * median(seconds) if seconds else 0.0


def _limit(floors: Any, name: str) -> str:
    return f"promote.floors.{name}, {getattr(floors, name):g}"
