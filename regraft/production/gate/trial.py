"""A trial: a new model against the one in production and the anchor, on today's test photos."""

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
from regraft.production.gate.comparison import Answers, Contest, Selection, contest, select
from regraft.production.gate.floors import below_floors
from regraft.production.gate.rule import Decision, ask_if_replaced, both_ways, decide
from regraft.production.gate.verdict import Around, Verdict, conclude, first_model, refuse_vanished
from regraft.production.training_data import Reference

_TIMED = 20  # photos, for the floor of milliseconds

Ask = Callable[[OnnxClassifier, Dataset], np.ndarray]  # what a model says of photos: float32, (n, num_classes)


@dataclass(frozen=True, slots=True)
class Former:
    """A model that is or was in production, and what it was trained on."""

    classifier: OnnxClassifier
    reference: Reference | None  # None where that is not known
    was_chosen: bool = False  # it was let in because of how it did on the test photos
    recent: tuple[float, ...] | None = None  # as of `Contest`


@dataclass(frozen=True, slots=True)
class Trial:
    """A new model, and what it is tried on."""

    challenger: OnnxClassifier
    path: Path  # of its file
    dataset: Dataset  # today's photos
    groups: pd.DataFrame  # of today's photos digest, group, phash, given_group and slices, from the manifest
    settings: Promote
    ask: Ask
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
        predicted, weights = self._as_shipped()
        floors = below_floors(
            self.settings.floors,
            labels,
            predicted,
            milliseconds=self._milliseconds(),
            model=self.path,
            weights=weights,
        )
        if champion is None:
            groups = groups_of_digests(self.test.rows.digest.tolist(), self.groups)
            accuracy = share_right(predicted == labels, np.array(groups), weights)
            return first_model(accuracy, len(labels), self.settings, Around(warnings, floors, looks, self.test_share))
        if vanished := self._vanished(champion.classifier):
            return refuse_vanished(vanished)
        if champion.reference is None:
            unknown = (
                "It is not known what the model in production was trained on, so photos of its training may be among "
                "the test photos."
            )
            warnings = [unknown, *warnings]
        selection, now = self._against(champion)
        before = {
            anchor.classifier.digest: self._against(anchor)[1]
            for anchor in anchors
            if not self._vanished(anchor.classifier)
        }
        decision = self._decide(champion, selection, now, [*before.values()])
        parts = {"class": now.by_class.figures(), **self._slices(selection, now)}
        around = Around(warnings, floors, looks, self.test_share, parts)
        return conclude(decision, now, before, selection, self.settings, around)

    @property
    def test_share(self) -> float:
        """The share of today's photos that are in test."""
        return len(self.test) / max(1, len(self.dataset))

    def _decide(self, champion: Former, selection: Selection, now: Contest, anchors: Sequence[Contest]) -> Decision:
        """Apply the rule, with the labels of today and, where some changed, those of production's record."""
        decision = decide(now, anchors, self.settings)
        if not selection.old_labels:
            return ask_if_replaced(decision, selection.replaced)
        old = decide(self._by_old_labels(champion, selection), anchors, self.settings)
        decision = both_ways(decision, old, len(selection.old_labels), now.n, self.settings)
        return ask_if_replaced(decision, selection.replaced)

    def _by_old_labels(self, champion: Former, selection: Selection) -> Contest:
        """The contest by the labels that production's record has.

        Where a label changed, the model that follows it looks worse by several nats in its log loss, so there only
        accuracy counts.
        """
        common = set(champion.classifier.class_names) & set(self.challenger.class_names)
        labels = self.test.rows.class_name.to_list()
        for row, label in selection.old_labels.items():
            labels[row] = label
        rows = np.array([row for row in selection.rows.tolist() if labels[row] in common], int)
        found = self._contest(champion, rows, np.array(labels, str)[rows])
        is_same = np.array([row not in selection.old_labels for row in rows.tolist()], bool)
        return replace(found, losses=found.losses[is_same])

    def _slices(self, selection: Selection, now: Contest) -> dict[str, list[dict[str, Any]]]:
        """The contest for each value of each slice that labels.csv names; photos without a value are a part as well."""
        rows = self.groups.drop_duplicates("digest").set_index("digest")
        rows = rows.reindex(self.test.rows.digest.iloc[selection.rows])
        return {
            name: now.by(rows[f"slice.{name}"].fillna("(none)").to_numpy(str)).figures() for name in slices_of(rows)
        }

    def _against(self, former: Former) -> tuple[Selection, Contest]:
        known = (former.classifier.class_names, self.challenger.class_names)
        distance = self.max_hash_distance
        selection = select(self.test.rows, self.groups, former.reference, known, max_hash_distance=distance)
        labels = self.test.rows.class_name.to_numpy(str)[selection.rows]
        return selection, self._contest(former, selection.rows, labels)

    def _contest(self, former: Former, rows: np.ndarray, labels: np.ndarray) -> Contest:
        photos = self.dataset.with_rows(self.test.rows.iloc[rows].reset_index(drop=True))
        found = contest(labels, self._answers(former.classifier, photos), self._answers(self.challenger, photos))
        return replace(found, was_chosen=former.was_chosen, recent=former.recent)

    def _as_shipped(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the classes that the new model names, and the weight of each photo with classes as in use."""
        names, test = self.challenger.class_names, self.test
        said = self.ask(self.challenger, test) if len(test) else np.zeros((0, len(names)), np.float32)
        shares = shares_of(self.challenger.metadata)
        return _named(Answers(names, said)), weights_for_use(test.rows.class_index.to_numpy(), test.class_names, shares)

    def _answers(self, classifier: OnnxClassifier, photos: Dataset) -> Answers:
        """What a model says without `export_onnx.class_shares`: a setting that changed makes no model better or worse.

        Test photos have the mix of classes that models are trained on, so with another one equal models would differ.
        """
        if not len(photos):
            return Answers(classifier.class_names, np.zeros((0, len(classifier.class_names)), np.float32))
        return Answers(classifier.class_names, as_learnt(self.ask(classifier, photos), classifier.metadata))

    def _vanished(self, former: OnnxClassifier) -> list[str]:
        """The classes that a former model knows, and today's photos lack although nobody gave them up."""
        return sorted({*former.class_names} - {*self.dataset.class_names} - {*self.settings.given_up})

    def _milliseconds(self) -> float | None:
        """The median time of the new model for one photo; only where there is a floor for it."""
        if self.settings.floors.milliseconds is None:
            return None
        seconds = []
        for photo in self.test.head(_TIMED).photos():
            with self.dataset.opened(photo) as rgb:
                start = time.perf_counter()
                self.challenger.probabilities(rgb)
                seconds.append(time.perf_counter() - start)
        return 1000 * median(seconds)


def _named(answers: Answers) -> np.ndarray:
    """The names of the most probable classes."""
    return np.array(answers.class_names, str)[answers.probabilities.argmax(axis=1)]
