"""Inference on photos that may vanish at any moment; predictions are stored, so a content is computed once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, NotImplemented, RuntimeException

from regraft.core.errors import InvalidData
from regraft.export.classifier import Answers, OnnxClassifier, answers_of
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.images import Threads
from regraft.photos.incoming import Incoming
from regraft.photos.scan_facts import FileFacts
from regraft.production.scores.table import CLASS, build_rows
from regraft.store.namespace import Namespace
from regraft.store.shards import key_of

_TOGETHER = 1024  # photos that become one shard of the store
_LONGEST = 200  # letters of an error
# Of one photo, and no reason to leave the others: it was moved or replaced, or the engine fails on it.
_OF_PHOTO = (InvalidData, OSError, ValueError, Fail, InvalidArgument, NotImplemented, RuntimeException)
_STATISTICS = ("width", "height", "brightness", "contrast", "sharpness", "entropy", "phash")


@dataclass(frozen=True, slots=True)
class Scored:
    """The rows of a run, and its counts."""

    rows: pd.DataFrame  # one per photo, and per file that should be one and cannot be read; from `build_rows`
    computed: int  # photos that the model was run on
    skipped: int  # files in the folder that nobody meant as photos


def score(
    incoming: Incoming,
    facts: Mapping[str, FileFacts],
    classifier: OnnxClassifier,
    threads: Threads,
    stored: Namespace,
) -> Scored:
    """Return a row per photo; only what the store does not hold is computed.

    Args:
        incoming: the photos.
        facts: metadata of each file, from `scan`.
        classifier: the model in production.
        threads: that decode and run; told how many photos are done, and to do.
        stored: from `regraft.export.classifier.open_said`.
    """
    skipped = {path for path in incoming.paths if not facts[path].meant_as_image and not incoming.is_named}
    problems = dict(incoming.refused)
    for path in incoming.paths:
        if path not in skipped and (facts[path].problem or not facts[path].meant_as_image):
            problems[path] = facts[path].problem or "not an image"
    sound = [path for path in incoming.paths if path not in skipped and path not in problems]
    rows = [(facts[path].digest, path, "", 0, "test", facts[path].format) for path in sound]
    photos = Dataset(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS), [], incoming.folder)
    inference = _Inference(classifier, threads, stored)
    inference.fill_store(photos)
    is_lost = photos.rows.digest.isin(list(inference.lost))
    problems |= {row.path: inference.lost[row.digest] for row in photos.rows[is_lost].itertuples()}
    table: list[dict[str, object]] = [
        {"path": path, "sha256": (facts[path].digest or None) if path in facts else None, "error": words}
        for path, words in problems.items()
    ]
    if not is_lost.all():
        there = photos.with_rows(photos.rows[~is_lost])
        quiet = replace(threads, on_progress=lambda done, total: None)
        predictions = answers_of(classifier, there, quiet, stored=stored)
        table += _rows(there.rows.path.tolist(), facts, classifier, predictions)
    return Scored(build_rows(table, classifier.class_names), inference.computed, len(skipped))


@dataclass(slots=True)
class _Inference:
    """Fills the store with predictions for photos that it lacks."""

    classifier: OnnxClassifier
    threads: Threads
    stored: Namespace
    computed: int = 0
    lost: dict[str, str] = field(default_factory=dict)  # by digest: why there is no prediction
    total: int = 0

    def fill_store(self, photos: Dataset) -> None:
        """Compute each missing content once."""
        missing = self._missing(photos)
        self.total = len(missing)
        for start in range(0, len(missing), _TOGETHER):
            self._fill(missing.with_rows(missing.rows.iloc[start : start + _TOGETHER]))

    def _missing(self, photos: Dataset) -> Dataset:
        keys = [key_of(source) for source in photos.sources()]
        missing = set(self.stored.missing(keys))
        return photos.with_rows(photos.rows[[key in missing for key in keys]].drop_duplicates("digest"))

    def _fill(self, part: Dataset) -> None:
        """Store predictions; a photo that fails is found by bisection and keeps none of the others."""
        before = self.computed + len(self.lost)

        def on_progress(done: int, total: int) -> None:
            self.threads.on_progress(before + done, self.total)

        try:
            answers_of(self.classifier, part, replace(self.threads, on_progress=on_progress), stored=self.stored)
            self.computed += len(part)
        except _OF_PHOTO as error:
            self.stored.flush()  # predictions from before the failure are not computed again
            if len(part) == 1:
                self.lost[part.rows.digest.iloc[0]] = " ".join(str(error).split())[:_LONGEST]
                return
            half = len(part) // 2
            for rows in (part.rows.iloc[:half], part.rows.iloc[half:]):
                self._fill(part.with_rows(rows))


def _rows(
    paths: list[str], facts: Mapping[str, FileFacts], classifier: OnnxClassifier, predictions: Answers
) -> list[dict[str, object]]:
    novelty = [None] * len(paths) if predictions.novelty is None else predictions.novelty.tolist()
    can_be_novel = predictions.novelty is not None and classifier.novel_above is not None
    columns = [CLASS + name for name in classifier.class_names]
    rows = []
    for path, probabilities, new in zip(paths, predictions.probabilities, novelty, strict=True):
        class_name = classifier.class_of(probabilities)
        rows.append(
            {
                "path": path,
                "sha256": facts[path].digest,
                "class": class_name,
                "probability": probabilities.max(),
                "unsure": class_name is None,
                "novelty": new,
                "novel": classifier.is_novel(new) if can_be_novel else None,
                "model": classifier.digest,
                **{name: getattr(facts[path], name) for name in _STATISTICS},
                **dict(zip(columns, probabilities, strict=True)),
            }
        )
    return rows
